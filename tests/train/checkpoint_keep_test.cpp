// Which checkpoints stay, and what becomes of those of a branch that is left.
#include "train/checkpoint/keep.h"

#include <gtest/gtest.h>

#include <fstream>
#include <set>

#include "support/temporary_folder.h"
#include "train/checkpoint/find.h"
#include "util/xxhash64.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;

class Keep : public ::testing::Test {
  protected:
    // A checkpoint whose manifest says `step`, in a folder of any name.
    void save(const std::string& name, int64_t step, std::optional<double> val_loss = {}) const {
        CheckpointManifest manifest;
        manifest.step = manifest.data.step = step;
        manifest.val_loss = val_loss;
        fs::create_directories(folder_ / name);
        std::ofstream(folder_ / name / "checkpoint.json") << to_json(manifest);
    }
    void save(int64_t step, std::optional<double> val_loss = {}) const {
        save(checkpoint_name(step), step, val_loss);
    }
    std::set<std::string> names() const {
        std::set<std::string> found;
        for (const auto& entry : fs::directory_iterator(folder_.path()))
            found.insert(entry.path().filename());
        return found;
    }
    using Names = std::set<std::string>;
    TemporaryFolder folder_;
};

TEST_F(Keep, NamesAndSteps) {
    EXPECT_EQ(checkpoint_name(7), "step_00000007");
    EXPECT_EQ(checkpoint_name(123456789), "step_123456789");
    EXPECT_EQ(step_of_name("x/step_00000007"), 7);
    for (const char* other : {"step_7", "step_00000007.bak", "step_", "step_-0000007", "step_ 0000007",
                              "abandoned_step_00000007", "step_99999999999999999999", "step_000000007"})
        EXPECT_EQ(step_of_name(other), std::nullopt) << other;
}

TEST_F(Keep, TheLastOnesAndTheBestOne) {
    for (int64_t step = 1; step <= 5; ++step) save(step, step == 2 ? 3.0 : 3.5);
    prune_checkpoints(folder_.path(), {.last = 2, .best = true}, 5);
    EXPECT_EQ(names(), (Names{"step_00000002", "step_00000004", "step_00000005"}));
    prune_checkpoints(folder_.path(), {.last = 1, .best = false}, 5);
    EXPECT_EQ(names(), (Names{"step_00000005"}));
}

// A run that went back to step 10 while 40 and 42 lie there.
TEST_F(Keep, LaterStepsAreOfAnotherBranchAndTakeNoPlace) {
    for (const int64_t step : {10, 16, 20, 40, 42}) save(step);
    prune_checkpoints(folder_.path(), {.last = 2}, 20);
    EXPECT_EQ(names(), (Names{"step_00000016", "step_00000020", "step_00000040", "step_00000042"}));
}

TEST_F(Keep, WhatIsNoCheckpointIsNobodysToTouch) {
    for (const int64_t step : {1, 2, 3, 4}) save(step);
    save("step_00000003.bak", 3);
    save("step_00000099", 3);  // a copy
    save("mine", 1);
    fs::create_directories(folder_ / "step_99999999");
    prune_checkpoints(folder_.path(), {.last = 2}, 4);
    EXPECT_EQ(names(), (Names{"step_00000003", "step_00000004", "step_00000003.bak", "step_00000099", "mine",
                              "step_99999999"}));
}

TEST_F(Keep, LaterOnesAreSetAside) {
    for (const int64_t step : {10, 40, 42}) save(step);
    save("step_00000099", 3);
    const auto lines = set_aside_later(folder_.path(), 10);
    ASSERT_EQ(lines.size(), 2U);
    EXPECT_NE(lines[0].find("step_00000042 is of the branch that is left: renamed abandoned_step_00000042"),
              std::string::npos)
        << lines[0];
    save(40);
    set_aside_later(folder_.path(), 10);
    EXPECT_EQ(names(), (Names{"step_00000010", "abandoned_step_00000040", "abandoned_step_00000040.2",
                              "abandoned_step_00000042", "step_00000099"}));
    EXPECT_EQ(checkpoint_folders(folder_.path()).size(), 2U);
}

}  // namespace
}  // namespace speedrun
