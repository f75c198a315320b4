#include "record/log/source_diff.h"

#include "record/log_builder.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace speedrun {
namespace {

std::string text(const std::vector<DiffLine>& lines) {
    std::string all;
    for (const DiffLine& line : lines)
        all += std::string(1, " -+."[static_cast<size_t>(line.kind)]) + line.text + "\n";
    return all;
}

TEST(SourceDiff, ShowsChangesWithTheLinesAround) {
    EXPECT_EQ(text(source_diff("a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n", "a\nb\nc\nD\ne\nf\ng\nh\ni\nj\nk\n")),
              " b\n c\n-d\n+D\n e\n f\n.\n i\n j\n+k\n");
    EXPECT_EQ(text(source_diff("a\nb\n", "a\nb\n")), "");
    EXPECT_EQ(text(source_diff("", "a\n")), "+a\n");
    EXPECT_EQ(text(source_diff("a\n", "")), "-a\n");
}

// The shortest script: of "abcabba" and "cbabac", 5 lines change (the example of Myers's paper).
TEST(SourceDiff, IsTheShortest) {
    int changes = 0;
    for (const DiffLine& line : source_diff("a\nb\nc\na\nb\nb\na\n", "c\nb\na\nb\na\nc\n"))
        changes += line.kind == DiffLine::Kind::removed || line.kind == DiffLine::Kind::added ? 1 : 0;
    EXPECT_EQ(changes, 5);
}

TEST(SourceDiff, ConfigsAreComparedByValue) {
    EXPECT_EQ(text(source_diff("{\"a\": 1, \"b\": {\"c\": 2}}\n", "{\"b\": {\"c\": 3},\n \"a\": 1}\n")),
              "-b.c: 2\n+b.c: 3\n");
    EXPECT_EQ(text(source_diff("{broken\n", "{\"a\": 1}\n")), "-{broken\n+{\"a\": 1}\n")
        << "compared as text";
}

TEST(SourceDiff, OfHugeTextsOnlyTheLength) {
    std::string huge;
    for (int i = 0; i < 7000; ++i) huge += "x\n";
    EXPECT_EQ(text(source_diff(huge, huge + "y\n")), "-7000 lines\n+7001 lines\n");
    EXPECT_EQ(text(source_diff(huge, huge)), "");
}

TEST(LogSource, IsWhatStandsBeforeTheFirstRule) {
    const TemporaryFolder folder;
    write_file(folder / "a.txt", log_text(3, 3.28));
    EXPECT_EQ(read_log_source(folder / "a.txt"), source_text());
    write_file(folder / "b.txt", step_lines(3, 3.28));
    EXPECT_EQ(read_log_source(folder / "b.txt"), "") << "no rule, no source";
    expect_user_error([&] { read_log_source(folder / "none"); }, {"none", "cannot be read"});
}

}  // namespace
}  // namespace speedrun
