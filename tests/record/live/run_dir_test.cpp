#include "record/live/run_dir.h"

#include <fstream>

#include "record/live/status_file.h"
#include "support/expect_error.h"
#include "support/file_text.h"
#include "support/temporary_folder.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;
using Former = RunDir::Former;

void put(const fs::path& path, const char* text) {
    fs::create_directories(path.parent_path());
    std::ofstream(path) << text;
}

TEST(RunDir, IsCreatedWithItsParentsAndEmpty) {
    const TemporaryFolder folder;
    RunDir run = RunDir::claim(folder / "a" / "b", {});
    run.begin();
    EXPECT_TRUE(fs::is_directory(folder / "a" / "b"));
    EXPECT_TRUE(fs::is_empty(folder / "a" / "b"));
    EXPECT_EQ(run.log(), folder.path() / "a" / "b" / "log.txt");
    EXPECT_EQ(run.name(), "b");
    EXPECT_EQ(RunDir::claim(folder / "c/", {}).name(), "c");
}

TEST(RunDir, AClaimThatIsGivenUpLeavesNothing) {
    const TemporaryFolder folder;
    { const RunDir run = RunDir::claim(folder / "a" / "b", {}); }
    EXPECT_TRUE(fs::is_empty(folder.path()));
    put(folder / "a" / "mine.txt", "mine");
    { const RunDir run = RunDir::claim(folder / "a" / "b", {}); }
    EXPECT_TRUE(fs::exists(folder / "a" / "mine.txt"));
    EXPECT_FALSE(fs::exists(folder / "a" / "b"));
}

TEST(RunDir, RefusesOneThatHoldsARunAndLeavesItAlone) {
    const TemporaryFolder folder;
    put(folder / "metrics.jsonl", "old");
    expect_user_error([&] { RunDir::claim(folder.path(), {}); },
                      {folder.path().string(), "already holds a run", "metrics.jsonl"});
    EXPECT_EQ(fs::file_size(folder / "metrics.jsonl"), 3u);
}

TEST(RunDir, ReplacesTheOldRunAndNothingElseOnceItBegins) {
    const TemporaryFolder folder;
    for (const char* name :
         {"metrics.jsonl", "weights.safetensors", "checkpoints/step_00000002/x", "notes.txt"})
        put(folder / name, "old");
    RunDir run = RunDir::claim(folder.path(), {.former = Former::replace});
    EXPECT_TRUE(fs::exists(folder / "metrics.jsonl") && fs::exists(folder / "checkpoints"));
    run.begin();
    EXPECT_FALSE(fs::exists(folder / "metrics.jsonl") || fs::exists(folder / "weights.safetensors"));
    EXPECT_FALSE(fs::exists(folder / "checkpoints"));
    EXPECT_TRUE(fs::exists(folder / "notes.txt"));
}

TEST(RunDir, ARunThatGoesOnStaysButForWhatWasUnfinished) {
    const TemporaryFolder folder;
    for (const char* name : {"log.txt", ".weights.safetensors.tmp-12-34", ".status.json.tmp", ".probe-12",
                             ".seen-by-all-12-34", ".mine"})
        put(folder / name, "old");
    RunDir run = RunDir::claim(folder.path(), {.former = Former::go_on});
    run.begin();
    EXPECT_TRUE(fs::exists(folder / "log.txt") && fs::exists(folder / ".mine"));
    EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 2);
}

TEST(RunDir, OneProcessAtATimeHoldsIt) {
    const TemporaryFolder folder;
    const RunDir run = RunDir::claim(folder / "run", {});
    expect_user_error([&] { RunDir::claim(folder / "run", {.former = Former::replace}); },
                      {"another run is using it"});
}

TEST(RunDir, RefusesTooLittleSpaceBeforeItRemovesAnything) {
    const TemporaryFolder folder;
    put(folder / "log.txt", "old");
    const RunDir::Options options{.former = Former::replace, .expected_bytes = int64_t{1} << 60};
    expect_user_error([&] { RunDir::claim(folder.path(), options); },
                      {folder.path().string(), "will write 1099511627776 MiB", "free"});
    EXPECT_TRUE(fs::exists(folder / "log.txt"));
}

TEST(RunDir, RefusesAFileInItsPlace) {
    const TemporaryFolder folder;
    put(folder / "file", "x");
    expect_user_error([&] { RunDir::claim(folder / "file", {}); }, {"file", "cannot be created"});
    expect_user_error([&] { RunDir::claim(folder.path() / "file" / "below", {}); },
                      {"below", "cannot be created"});
}

// /proc takes no new file, not even from root.
TEST(RunDir, RefusesADirectoryThatTakesNoFile) {
    expect_user_error([] { RunDir::claim("/proc", {}); }, {"/proc", "cannot be written"});
    expect_user_error([] { RunDir::claim("/proc/run", {}); }, {"/proc/run", "cannot be created"});
}

TEST(RunDir, RefusesAnOutputThatCannotBeRemovedBeforeAnythingIs) {
    const TemporaryFolder folder;
    fs::create_directories(folder / "log.txt" / "inside");
    put(folder / "config.json", "old");
    expect_user_error([&] { RunDir::claim(folder.path(), {.former = Former::replace}); },
                      {"log.txt", "cannot be removed"});
    EXPECT_TRUE(fs::exists(folder / "config.json"));
}

TEST(RunDir, WeightsFollowADirectoryThatWasMoved) {
    const TemporaryFolder folder;
    RunDir run = RunDir::claim(folder / "run", {});
    run.begin();
    fs::rename(folder / "run", folder / "moved");
    EXPECT_EQ(run.weights(), fs::canonical(folder / "moved") / "weights.safetensors");
    fs::remove(folder / "moved");
    expect_user_error([&] { run.weights(); }, {"was removed while it was in use"});
}

TEST(Status, OfARunThatGoesOnNoMoreSaysWhy) {
    const TemporaryFolder folder;
    const fs::path path = folder / "status.json";
    write_failure(path, "nothing to say it of");
    EXPECT_FALSE(fs::exists(path));
    RunStatus status;
    status.state = "running";
    status.step = 7;
    status.eta_seconds = 3;
    write_status(path, status);
    write_failure(path, "rank 1 died");
    EXPECT_EQ(read_state(path), "failed");
    const std::string text = contents(path);
    for (const char* part : {"\"step\": 7", "\"message\": \"rank 1 died\"", "\"process\": "})
        EXPECT_NE(text.find(part), std::string::npos) << text;
    EXPECT_EQ(text.find("eta_seconds"), std::string::npos);
    write_failure(path, "the last word stands");
    EXPECT_EQ(contents(path), text);
}

// A link of a temporary file's name is not written through.
TEST(Status, IsNotWrittenThroughALink) {
    const TemporaryFolder folder;
    put(folder / "mine", "mine");
    fs::create_symlink("mine", folder / ".status.json.tmp");
    write_status(folder / "status.json", {});
    EXPECT_EQ(contents(folder / "mine"), "mine");
}

}  // namespace
}  // namespace speedrun
