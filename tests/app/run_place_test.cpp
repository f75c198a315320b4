// What becomes of a run that is in the directory, and over which data one goes on.
#include "app/run_place.h"

#include <gtest/gtest.h>

#include <fstream>

#include "app/resume.h"
#include "app/session.h"
#include "model/load_config.h"
#include "record/live/status_file.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;
using Former = RunDir::Former;

class RunPlace : public ::testing::Test {
  protected:
    void put(const std::string& name, const std::string& text = "x") const {
        fs::create_directories((folder_ / name).parent_path());
        std::ofstream(folder_ / name) << text;
    }
    Checkpoint checkpoint(const std::string& name) const {
        fs::create_directories(folder_ / name);
        return {folder_ / name, {}};
    }
    Former former(const std::optional<Checkpoint>& resumed, const PlaceWishes& wishes) {
        notes_.clear();
        return former_run(folder_ / "run", resumed, wishes, notes_);
    }
    TemporaryFolder folder_;
    std::vector<std::string> notes_;
};

TEST_F(RunPlace, ACheckpointOfTheRunMeansThatItGoesOn) {
    const Checkpoint own = checkpoint("run/checkpoints/step_00000004");
    for (const bool overwrite : {false, true})
        EXPECT_EQ(former(own, {.automatic = true, .overwrite = overwrite}), Former::go_on);
    const Checkpoint other = checkpoint("other/checkpoints/step_00000004");
    EXPECT_EQ(former(other, {}), Former::none);
    EXPECT_EQ(former(other, {.automatic = false, .overwrite = true}), Former::replace);
    const Checkpoint inside = checkpoint("run/backup/step_00000004");
    EXPECT_EQ(former(inside, {}), Former::none);
    expect_user_error([&] { former(inside, {.automatic = false, .overwrite = true}); },
                      {"--overwrite", "holds the checkpoint", "backup"});
}

TEST_F(RunPlace, OnlyWhatWasCutBeforeItsFirstCheckpointBeginsAnew) {
    put("run/config.json");
    EXPECT_EQ(former({}, {}), Former::none);
    EXPECT_EQ(former({}, {.automatic = true}), Former::replace);
    EXPECT_EQ(notes_.size(), 1U);
    fs::create_directories(folder_ / "run/checkpoints/.step_00000002.7");  // of a save that was cut
    EXPECT_EQ(former({}, {.automatic = true}), Former::replace);
    put("run/checkpoints/step_00000002.bak/weights.safetensors");
    EXPECT_EQ(former({}, {.automatic = true}), Former::none) << "a copy that somebody keeps";
    fs::remove_all(folder_ / "run/checkpoints");
    put("run/weights.safetensors");
    EXPECT_EQ(former({}, {.automatic = true}), Former::none);
}

TEST_F(RunPlace, AFinishedRunOfTheConfigHasNothingToDo) {
    const Config config = load_config(SPEEDRUN_SOURCE_DIR "/tests/golden/golden_tiny.json");
    const auto finished = [&](const std::optional<Checkpoint>& left) {
        return is_finished(folder_ / "run", config, left);
    };
    put("run/config.json", config.resolved_json);
    EXPECT_FALSE(finished({}));
    put("run/status.json", "{\"state\": \"finished\"}");
    EXPECT_TRUE(finished({}));
    Config other = config;
    other.resolved_json = "{}";
    EXPECT_FALSE(is_finished(folder_ / "run", other, {}));
    Checkpoint last;
    last.manifest.step = config.schedule.total_steps();
    EXPECT_FALSE(finished(last)) << "its weights are gone";
    put("run/weights.safetensors");
    EXPECT_TRUE(finished(last));
    --last.manifest.step;
    EXPECT_FALSE(finished(last)) << "its last checkpoint is gone";
}

TEST(DataChanges, AreListedAndAskedAbout) {
    const ShardIdentity a{"a.bin", 10, "aaaa"}, renamed{"z.bin", 10, "aaaa"}, b{"b.bin", 10, "bbbb"};
    Checkpoint checkpoint;
    checkpoint.manifest.train_shards = {a, b};
    checkpoint.manifest.val_shards = {b};
    const std::vector<ShardIdentity> same{renamed, b}, more{b, a, b}, val{b};
    EXPECT_TRUE(data_changes(checkpoint, same, val, false).empty());
    expect_user_error([&] { data_changes(checkpoint, more, val, false); },
                      {"--accept-changes", "training shard 1: a.bin (10 bytes, samples aaaa) -> b.bin",
                       "training shard 3: (none) -> b.bin"});
    EXPECT_EQ(data_changes(checkpoint, more, val, true).size(), 3U);
    EXPECT_EQ(data_changes(checkpoint, same, same, true).size(), 2U);
}

TEST(ParallelChange, SaysThatBitsDiffer) {
    CheckpointManifest then;
    then.world_size = 2;
    then.threads = 4;
    EXPECT_EQ(parallel_change(then, 2, 4), "");
    EXPECT_NE(
        parallel_change(then, 1, 4).find("2 ranks and 4 threads wrote the checkpoint, 1 rank and 4 threads"),
        std::string::npos);
    EXPECT_NE(parallel_change(then, 2, 1).find("not bit for bit"), std::string::npos);
}

TEST(Threads, AreAFewForEachCore) {
    RuntimeConfig runtime;
    runtime.threads = 16;
    require_threads(runtime, 2);
    runtime.threads = 17;
    expect_user_error([&] { require_threads(runtime, 2); }, {"runtime.threads is 17; allowed here: 0 to 16"});
}

}  // namespace
}  // namespace speedrun
