#include "train/checkpoint/checkpointer.h"

#include <ATen/ATen.h>

#include <random>
#include <utility>

#include "util/error.h"

namespace speedrun {
namespace {

// Rank 0's random number, on every rank.
std::string shared_token(Communicator& communicator) {
    std::random_device random;
    const at::Tensor number = at::full({1}, static_cast<int64_t>(random()), at::kLong);
    communicator.broadcast(number, 0, "checkpoint token")->wait();
    return std::to_string(number.item<int64_t>());
}

CheckpointWriter::Options writer_options(const Checkpointer::Run& run) {
    const auto& wanted = run.config.runtime.checkpoint;
    return {.folder = run.folder,
            .rank = run.communicator.rank(),
            .config_json = run.config.resolved_json,
            .token = shared_token(run.communicator),
            .keep = {.last = wanted.keep_last, .best = wanted.keep_best}};
}

}  // namespace

Checkpointer::Checkpointer(const Run& run)
    : run_(run), writer_(writer_options(run)), last_(std::chrono::steady_clock::now()) {}

Checkpointer::Signs Checkpointer::signs(bool save) {
    const double minutes = run_.config.runtime.checkpoint.every_minutes;
    const std::chrono::duration<double, std::ratio<60>> since = std::chrono::steady_clock::now() - last_;
    const bool late = minutes > 0 && run_.communicator.rank() == 0 && since.count() >= minutes;
    const bool busy = writer_.busy();
    const bool failed = phase_ != Phase::idle && !busy && !writer_.error().empty();
    return {save || late ? 1.0 : 0.0, busy ? 1.0 : 0.0, failed ? 1.0 : 0.0};
}

void Checkpointer::agreed(const Signs& sum) {
    wanted_ = wanted_ || sum.save > 0;
    if (phase_ == Phase::idle || sum.pending > 0) return;
    const bool leads = run_.communicator.rank() == 0;
    const std::string step = std::to_string(saving_step_);
    if (sum.failed > 0) {
        const std::string reason = writer_.error();
        if (!reason.empty())
            notes_.push_back("the checkpoint after step " + step + " could not be written: " + reason);
        if (leads) writer_.discard();
        ++failures_;
        saving_step_ = 0;
        phase_ = Phase::idle;
    } else if (phase_ == Phase::parts) {
        if (leads) writer_.commit(run_.communicator.world_size());
        phase_ = Phase::commit;
    } else {
        last_saved_ = writer_.path_of(saving_step_);
        if (leads) notes_.push_back("saved " + last_saved_.string());
        phase_ = Phase::idle;
    }
}

bool Checkpointer::wants(int64_t steps_finished, bool adam_stepped) {
    const int64_t every = run_.config.runtime.checkpoint.every_steps;
    wanted_ = wanted_ || (every > 0 && steps_finished % every == 0);
    return wanted_ && adam_stepped;
}

void Checkpointer::begin(CheckpointManifest manifest) {
    drain();
    saving_step_ = manifest.step;
    writer_.begin(checkpoint_layout(run_.config, run_.parameters, run_.optimizer, run_.communicator.rank(),
                                    run_.communicator.world_size(), manifest.pending_gradients),
                  std::move(manifest));
    phase_ = Phase::parts;
    wanted_ = false;
    last_ = std::chrono::steady_clock::now();
}

void Checkpointer::drain() {
    while (phase_ != Phase::idle) {
        writer_.wait();
        const Signs own = signs(false);
        std::array<double, 3> sum{own.save, own.pending, own.failed};
        run_.communicator
            .all_reduce(at::from_blob(sum.data(), {3}, at::kDouble), ReduceOp::sum, "checkpoint")
            ->wait();
        agreed({0, sum[1], sum[2]});
    }
}

std::vector<std::string> Checkpointer::take_notes() {
    return std::exchange(notes_, {});
}

}  // namespace speedrun
