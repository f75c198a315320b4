// The thread that writes checkpoints beside a run that goes on. Also built with ThreadSanitizer
// (scripts/sanitize).
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "comm/make_communicator.h"
#include "model/gpt.h"
#include "model/initialize.h"
#include "model/load_config.h"
#include "support/temporary_folder.h"
#include "train/checkpoint/checkpointer.h"
#include "train/checkpoint/load.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;

CheckpointManifest after(int64_t step) {
    CheckpointManifest manifest;
    manifest.step = manifest.data.step = step;
    return manifest;
}

class CheckpointThreads : public ::testing::Test {
  protected:
    CheckpointThreads() { initialize(model_.parameters(), config_.model, 3); }

    CheckpointWriter::Options options() const {
        return {.folder = folder_ / "checkpoints",
                .rank = 0,
                .config_json = config_.resolved_json,
                .token = "t",
                .keep = {}};
    }
    CheckpointLayout layout() const {
        return checkpoint_layout(config_, model_.parameters(), optimizer_, 0, 1, false);
    }
    void fill(double value) {
        for (const Parameter& parameter : model_.parameters().all()) parameter.value.fill_(value);
    }

    const Config config_ = load_config(SPEEDRUN_SOURCE_DIR "/tests/golden/golden_tiny.json");
    GPT model_{config_, 256, at::kCPU};
    std::unique_ptr<Communicator> communicator_ = make_self_communicator();
    Optimizer optimizer_{config_, model_.parameters(), *communicator_};
    TemporaryFolder folder_;
};

TEST_F(CheckpointThreads, WhatIsWrittenIsTheStateAtItsBeginning) {
    CheckpointWriter writer(options());
    for (int64_t step = 1; step <= 4; ++step) {
        fill(static_cast<double>(step));
        writer.begin(layout(), after(step));
        fill(-1);  // the run goes on
        writer.wait();
        ASSERT_EQ(writer.error(), "");
        writer.commit(1);
        while (writer.busy()) fill(-2);
        ASSERT_EQ(writer.error(), "");
        load_checkpoint(open_checkpoint(writer.path_of(step)), config_, model_.parameters(), optimizer_,
                        *communicator_);
        for (const Parameter& parameter : model_.parameters().all())
            EXPECT_TRUE(parameter.value.eq(static_cast<double>(step)).all().item<bool>()) << step;
    }
    EXPECT_EQ(checkpoint_folders(folder_ / "checkpoints").size(),
              2U);  // keep_last; none has a validation loss
}

// The scales of 8-bit floats, and weights in 8 bits by a scale that their own amax does not say; a run on two
// ranks takes the larger scale of activations over, as this one does from a run on two.
TEST_F(CheckpointThreads, ScalesOfEightBitFloatsComeBack) {
    const std::vector<std::string> overrides{"numerics.mlp.up.format=fp8", "numerics.mlp.down.format=fp8"};
    const Config config = load_config(SPEEDRUN_SOURCE_DIR "/tests/golden/golden_tiny.json", overrides);
    GPT model(config, 256, at::kCPU);
    initialize(model.parameters(), config.model, 3);
    ParameterTable& table = model.parameters();
    for (Parameter& parameter : table.all()) parameter.value.normal_(0, 0.1);
    table.refresh();
    Optimizer optimizer(config, table, *communicator_);
    const Fp8Weights& fp8 = table.fp8();
    const int64_t count = fp8.weight_scales().numel();
    ASSERT_EQ(count, 22);
    for (int64_t step = 100; step < 102; ++step) table.refresh_fp8(step);
    fp8.activation_scales().copy_(at::arange(1, count + 1) * 0.001);
    std::vector<at::Tensor> codes;
    for (int64_t i = 0; i < count; ++i) codes.push_back(fp8.matrix(i).codes.clone());
    const at::Tensor weight_scales = fp8.weight_scales().clone(), own = fp8.activation_scales().clone();
    CheckpointWriter writer(options());
    for (const int64_t ranks : {1, 2}) {
        SCOPED_TRACE(ranks);
        CheckpointLayout layout = checkpoint_layout(config, table, optimizer, 0, ranks, false);
        const CheckpointExtent& first = layout.extents.back();  // of the activations, this rank's row
        if (ranks == 2)
            layout.extents.push_back(
                {first.file, first.offset + first.tensor.nbytes(), first.tensor.flip(0)});
        CheckpointManifest manifest = after(ranks);
        manifest.world_size = ranks;
        writer.begin(layout, manifest);
        writer.wait();
        ASSERT_EQ(writer.error(), "");
        writer.commit(1);
        writer.wait();
        ASSERT_EQ(writer.error(), "");
        for (Parameter& parameter : table.all()) parameter.value.fill_(1);
        table.refresh();
        load_checkpoint(open_checkpoint(writer.path_of(ranks)), config, table, optimizer, *communicator_);
        EXPECT_TRUE(at::equal(fp8.weight_scales(), weight_scales));
        EXPECT_TRUE(at::equal(fp8.activation_scales(), ranks == 1 ? own : at::maximum(own, own.flip(0))));
        for (int64_t i = 0; i < count; ++i)
            EXPECT_TRUE(at::equal(fp8.matrix(i).codes, codes[static_cast<size_t>(i)])) << i;
        fp8.activation_scales().copy_(own);
    }
}

// As Trainer uses it: agreement after each step, saves at every second one, until the run has ended.
TEST_F(CheckpointThreads, ACheckpointerBesideARun) {
    Config config = config_;
    config.runtime.checkpoint.every_steps = 2;
    Checkpointer checkpointer(
        {config, model_.parameters(), optimizer_, *communicator_, folder_ / "checkpoints"});
    for (int64_t step = 1; step <= 40; ++step) {
        fill(static_cast<double>(step));
        checkpointer.agreed(checkpointer.signs(false));
        if (checkpointer.wants(step, true)) checkpointer.begin(after(step));
    }
    checkpointer.drain();
    EXPECT_EQ(checkpointer.failures(), 0);
    EXPECT_EQ(checkpointer.take_notes().size(), 20U);  // however slow the disk, none is left out
    std::vector<std::string> damaged;
    const auto newest = find_checkpoint(folder_ / "checkpoints", damaged);
    ASSERT_TRUE(newest.has_value());
    EXPECT_TRUE(damaged.empty());
    EXPECT_EQ(newest->folder, checkpointer.last_saved());
}

// Where a rank writes to another folder of the name, its part is zeros in the files of rank 0.
TEST_F(CheckpointThreads, WithoutEveryRanksPartThereIsNoCheckpoint) {
    CheckpointWriter writer(options());
    writer.begin(layout(), after(1));
    writer.wait();
    ASSERT_EQ(writer.error(), "");
    writer.commit(2);
    writer.wait();
    EXPECT_NE(writer.error().find("has no part of rank 1"), std::string::npos) << writer.error();
    EXPECT_TRUE(checkpoint_folders(folder_ / "checkpoints").empty());
    writer.discard();
    EXPECT_TRUE(fs::is_empty(folder_ / "checkpoints"));
}

TEST_F(CheckpointThreads, NothingIsSavedWhereTheRunDirectoryWasMoved) {
    fs::create_directories(folder_ / "run");
    CheckpointWriter::Options moved = options();
    moved.folder = folder_ / "run" / "checkpoints";
    CheckpointWriter writer(moved);
    fs::rename(folder_ / "run", folder_ / "elsewhere");
    fs::create_directories(folder_ / "run");  // of the next run
    writer.begin(layout(), after(1));
    writer.wait();
    EXPECT_NE(writer.error().find("was moved to"), std::string::npos) << writer.error();
    EXPECT_TRUE(fs::is_empty(folder_ / "run"));
}

TEST_F(CheckpointThreads, WhatOtherRunsLeftUnfinishedGoesWithTheFirstSave) {
    for (const char* name : {".step_00000009.other", ".trash_step_00000001", "step_00000001.bak"})
        fs::create_directories(folder_ / "checkpoints" / name);
    CheckpointWriter writer(options());
    EXPECT_TRUE(fs::exists(folder_ / "checkpoints/.step_00000009.other"))
        << "a run that is refused changes nothing";
    writer.begin(layout(), after(2));
    writer.wait();
    writer.commit(1);
    writer.wait();
    ASSERT_EQ(writer.error(), "");
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_ / "checkpoints"))
        names.push_back(entry.path().filename());
    std::ranges::sort(names);
    EXPECT_EQ(names, (std::vector<std::string>{"step_00000001.bak", "step_00000002"}));
    EXPECT_FALSE(fs::exists(writer.path_of(2) / "part_0"));
}

// A save that fails leaves nothing behind, and the next one works.
TEST_F(CheckpointThreads, AFailedSaveIsForgotten) {
    CheckpointWriter writer(options());
    std::ofstream(folder_ / "checkpoints") << "in the way";
    writer.begin(layout(), after(1));
    writer.wait();
    EXPECT_NE(writer.error(), "");
    writer.discard();
    fs::remove(folder_ / "checkpoints");
    writer.begin(layout(), after(2));
    writer.wait();
    EXPECT_EQ(writer.error(), "");
    writer.commit(1);
    writer.wait();
    EXPECT_EQ(writer.error(), "");
    EXPECT_EQ(open_checkpoint(writer.path_of(2)).manifest.step, 2);
}

}  // namespace
}  // namespace speedrun
