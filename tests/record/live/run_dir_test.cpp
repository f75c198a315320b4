#include "record/live/run_dir.h"

#include <fstream>

#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;

void put(const fs::path& path, const char* text) {
    std::ofstream(path) << text;
}

TEST(RunDir, IsCreatedWithItsParentsAndEmpty) {
    const TemporaryFolder folder;
    const RunDir run = RunDir::create(folder / "a" / "b");
    EXPECT_TRUE(fs::is_directory(folder / "a" / "b"));
    EXPECT_TRUE(fs::is_empty(folder / "a" / "b"));
    EXPECT_EQ(run.log(), folder.path() / "a" / "b" / "log.txt");
}

TEST(RunDir, RefusesOneThatHoldsARunAndLeavesItAlone) {
    const TemporaryFolder folder;
    put(folder / "metrics.jsonl", "old");
    expect_user_error([&] { RunDir::create(folder.path()); },
                      {folder.path().string(), "already holds a run", "metrics.jsonl"});
    EXPECT_EQ(fs::file_size(folder / "metrics.jsonl"), 3u);
}

TEST(RunDir, OverwriteRemovesTheOldRunAndNothingElse) {
    const TemporaryFolder folder;
    put(folder / "metrics.jsonl", "old");
    put(folder / "weights.safetensors", "old");
    put(folder / "notes.txt", "mine");
    RunDir::create(folder.path(), {.overwrite = true, .expected_bytes = 0});
    EXPECT_FALSE(fs::exists(folder / "metrics.jsonl"));
    EXPECT_FALSE(fs::exists(folder / "weights.safetensors"));
    EXPECT_TRUE(fs::exists(folder / "notes.txt"));
}

TEST(RunDir, RefusesTooLittleSpaceBeforeItRemovesAnything) {
    const TemporaryFolder folder;
    put(folder / "log.txt", "old");
    const RunDirOptions options{.overwrite = true, .expected_bytes = int64_t{1} << 60};
    expect_user_error([&] { RunDir::create(folder.path(), options); },
                      {folder.path().string(), "will write 1099511627776 MiB", "free"});
    EXPECT_TRUE(fs::exists(folder / "log.txt"));
}

TEST(RunDir, RefusesAFileInItsPlace) {
    const TemporaryFolder folder;
    put(folder / "file", "x");
    expect_user_error([&] { RunDir::create(folder / "file"); }, {"file", "cannot be created"});
    expect_user_error([&] { RunDir::create(folder.path() / "file" / "below"); },
                      {"below", "cannot be created"});
}

// /proc takes no new file, not even from root.
TEST(RunDir, RefusesADirectoryThatTakesNoFile) {
    expect_user_error([] { RunDir::create("/proc"); }, {"/proc", "cannot be written"});
    expect_user_error([] { RunDir::create("/proc/run"); }, {"/proc/run", "cannot be created"});
}

TEST(RunDir, RefusesAnOutputThatCannotBeRemoved) {
    const TemporaryFolder folder;
    fs::create_directories(folder / "log.txt" / "inside");
    expect_user_error([&] { RunDir::create(folder.path(), {.overwrite = true, .expected_bytes = 0}); },
                      {"log.txt", "cannot be removed"});
}

}  // namespace
}  // namespace speedrun
