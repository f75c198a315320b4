#include "config/schedule.h"

#include <algorithm>

#include "util/error.h"

namespace speedrun {
namespace {

// Flat, then linear to `floor`, then flat (clamp_x keeps the extension just above the floor).
double lr_scale(const ScheduleConfig& schedule, int64_t step) {
    const auto& lr = schedule.lr;
    const double x =
        std::min(lr.clamp_x, static_cast<double>(step) / static_cast<double>(schedule.scheduled_steps));
    if (lr.cooldown_frac == 0 || x < 1 - lr.cooldown_frac) return 1;
    const double w = (1 - x) / lr.cooldown_frac;
    return w * 1.0 + (1 - w) * lr.floor;
}

// min -> max over the first warmup_steps, back to min over the last cooldown_steps; the warm-up wins where
// they meet.
double muon_momentum(const MatrixConfig::Momentum& momentum, int64_t total_steps, int64_t step) {
    const double range = momentum.max - momentum.min;
    if (step < momentum.warmup_steps)
        return momentum.min + static_cast<double>(step) / static_cast<double>(momentum.warmup_steps) * range;
    const int64_t cooldown_start = total_steps - momentum.cooldown_steps;
    if (step > cooldown_start)
        return momentum.max - static_cast<double>(step - cooldown_start) /
                                  static_cast<double>(momentum.cooldown_steps) * range;
    return momentum.max;
}

size_t stage_at(const ScheduleConfig& schedule, int64_t step) {
    const auto next = std::upper_bound(schedule.stages.begin(), schedule.stages.end(), step,
                                       [](int64_t at, const Stage& stage) { return at < stage.start; });
    check(next != schedule.stages.begin(), "the first stage starts at step 0");
    return static_cast<size_t>(next - schedule.stages.begin()) - 1;
}

}  // namespace

StepSettings settings_at(const Config& config, int64_t step) {
    const ScheduleConfig& schedule = config.schedule;
    const int64_t total = schedule.total_steps();
    check(step >= 0 && step <= total, "step " + std::to_string(step) + " is outside [0, total_steps]");
    const size_t index = stage_at(schedule, step);
    const Stage& stage = schedule.stages[index];
    const bool last = step == total;
    StepSettings settings;
    settings.step = step;
    settings.lr_scale = lr_scale(schedule, step) * stage.lr_mul;
    settings.muon_momentum = muon_momentum(config.optimizer.matrix.momentum, total, step);
    settings.stage = index;
    settings.batch_tokens = stage.batch_tokens;
    settings.row_tokens = stage.batch_tokens / config.data.rows;
    settings.max_seq_len = stage.max_seq_len;
    settings.window_short = stage.window_short * schedule.block_size;
    settings.window_long = (last ? schedule.eval.final_long_window : stage.window_long) * schedule.block_size;
    settings.yarn_window = stage.window_long;
    settings.trains = !last;
    const int64_t n = config.optimizer.adam.every_n_steps;
    settings.adam_steps = !last && step % n == n - 1;
    settings.validate = last || (schedule.eval.every > 0 && step % schedule.eval.every == 0);
    return settings;
}

}  // namespace speedrun
