#include "record/report/figure_files.h"

#include <gtest/gtest.h>

#include "record/log_builder.h"
#include "support/expect_error.h"
#include "support/file_text.h"
#include "support/temporary_folder.h"
#include "util/child_process.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;

NamedFigures two_figures() {
    return {{"one", Svg(40, 20, "a picture")}, {"two", Svg(40, 20, "another")}};
}

TEST(FigureFiles, SvgsUnderTheirNames) {
    const TemporaryFolder folder;
    const auto files = write_svgs(two_figures(), folder / "not" / "there");
    ASSERT_EQ(files.size(), 2U);
    EXPECT_EQ(files[1], folder / "not" / "there" / "two.svg");
    EXPECT_EQ(contents(files[1]), two_figures()[1].second.alone());
    write_file(folder / "file", "in the way");
    expect_user_error([&] { write_svgs(two_figures(), folder / "file" / "below"); },
                      {"below", "cannot be created", "Not a directory"});
}

TEST(FigureFiles, PngsLeaveNothingElse) {
    if (!program_exists("rsvg-convert")) {
        expect_user_error([] { require_png(); }, {"rsvg-convert", "librsvg2-bin"});
        return;
    }
    const TemporaryFolder folder;
    const auto files = write_pngs(two_figures(), folder / "png");
    ASSERT_EQ(files.size(), 2U);
    EXPECT_TRUE(contents(files[0]).starts_with("\x89PNG"));
    EXPECT_EQ(std::distance(fs::directory_iterator(folder / "png"), fs::directory_iterator()), 2);
}

}  // namespace
}  // namespace speedrun
