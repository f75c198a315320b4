#include "config/schedule.h"

#include <algorithm>
#include <cmath>

#include "util/error.h"

namespace speedrun {
namespace {

// The item of the last stage that has started; the first one starts at step 0.
template <class S>
size_t stage_at(const std::vector<S>& stages, int64_t step) {
    const auto next = std::ranges::upper_bound(stages, step, {}, &S::start);
    check(next != stages.begin(), "the first stage starts at step 0");
    return static_cast<size_t>(next - stages.begin()) - 1;
}

// Flat, then linear to `floor`, then flat (clamp_x keeps the extension just above the floor).
double lr_scale(const LrSchedule& lr, int64_t scheduled_steps, int64_t step) {
    const double mul = lr.stages.empty() ? 1 : lr.stages[stage_at(lr.stages, step)].mul;
    if (lr.cooldown_start >= 0) {
        if (step < lr.cooldown_start) return mul;
        const auto begun = static_cast<double>(step - lr.cooldown_start);
        const double t = std::min(1.0, begun / static_cast<double>(scheduled_steps - lr.cooldown_start));
        const double w = std::pow(1 - t, lr.exponent);
        return mul * w + lr.floor * (1 - w);
    }
    const double x = std::min(lr.clamp_x, static_cast<double>(step) / static_cast<double>(scheduled_steps));
    if (lr.cooldown_frac == 0 || x < 1 - lr.cooldown_frac) return mul;
    const double w = std::pow((1 - x) / lr.cooldown_frac, lr.exponent);
    return w * mul + (1 - w) * lr.floor;
}

// How far the step's forward runs ahead: by the schedule of the step before, 1 where there is none.
double lookahead(const Config& config, int64_t step) {
    const auto& ahead = config.optimizer.lookahead;
    if (!ahead || step < ahead->from || step >= ahead->until) return 0;
    const ScheduleConfig& schedule = config.schedule;
    return ahead->beta * (step == 0 ? 1 : lr_scale(schedule.lr, schedule.scheduled_steps, step - 1));
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

// How far weights have gone from `begin` to `end`, 0 to 1.
double share_gone(double begin, double end, int64_t step) {
    return end > begin ? std::clamp((static_cast<double>(step) - begin) / (end - begin), 0.0, 1.0) : 0;
}

// Where the stage has one at all, also in its steps in which it is 0: a stage's passes are all of one kind.
std::optional<double> prefix_weight(const Stage& stage, int64_t step) {
    if (!stage.prefix || !stage.prefix->weighs()) return std::nullopt;
    const auto& [from, to, begin, end] = *stage.prefix;
    return from + share_gone(begin, end, step) * (to - from);
}

std::vector<double> mtp_weights(const Stage& stage, int64_t step) {
    if (!stage.mtp) return {1};
    const Mtp& mtp = *stage.mtp;
    const double share = share_gone(mtp.begin, mtp.end, step);
    std::vector<double> weights;
    for (size_t k = 0; k < mtp.from.size(); ++k)
        weights.push_back(mtp.from[k] + share * (mtp.to[k] - mtp.from[k]));
    return weights;
}

// Whether a batch or long window that is another than before is less than freeze.steps steps old.
bool frozen(const ScheduleConfig& schedule, int64_t step) {
    for (size_t k = 1; k < schedule.stages.size(); ++k) {
        const Stage &stage = schedule.stages[k], &before = schedule.stages[k - 1];
        const bool differs =
            stage.batch_tokens != before.batch_tokens || stage.window_long != before.window_long;
        if (differs && step >= stage.start && step < stage.start + schedule.freeze.steps) return true;
    }
    return false;
}

bool validates(const ScheduleConfig& schedule, int64_t step) {
    const auto& eval = schedule.eval;
    const double gone = static_cast<double>(step) / static_cast<double>(schedule.scheduled_steps);
    const int64_t every = eval.late_every > 0 && gone >= eval.late_from ? eval.late_every : eval.every;
    return every > 0 && step % every == 0;
}

}  // namespace

StepSettings settings_at(const Config& config, int64_t step) {
    const ScheduleConfig& schedule = config.schedule;
    const int64_t total = schedule.total_steps();
    check(step >= 0 && step <= total, "step " + std::to_string(step) + " is outside [0, total_steps]");
    const size_t index = stage_at(schedule.stages, step);
    const Stage& stage = schedule.stages[index];
    const bool last = step == total;
    StepSettings settings;
    settings.step = step;
    settings.lr_scale = lr_scale(schedule.lr, schedule.scheduled_steps, step);
    settings.matrix_lr_scale = schedule.matrix_lr
                                   ? lr_scale(*schedule.matrix_lr, schedule.scheduled_steps, step)
                                   : settings.lr_scale;
    settings.muon_momentum =
        muon_momentum(config.optimizer.matrix.momentum, std::max(total, schedule.scheduled_steps), step);
    settings.lookahead = last ? 0 : lookahead(config, step);
    if (const auto& tail = config.optimizer.tail_ema) {
        settings.averages = step + 1 >= tail->from && step + 1 < tail->until;
        settings.restarts_average = step + 1 == tail->from;
        settings.readout = step >= tail->from ? tail->weight : 0;
    }
    settings.stage = index;
    settings.batch_tokens = stage.batch_tokens;
    settings.row_tokens = stage.batch_tokens / config.data.rows;
    settings.max_seq_len = stage.max_seq_len;
    settings.window_short = stage.window_short * schedule.block_size;
    settings.window_long = (last ? schedule.eval.final_long_window : stage.window_long) * schedule.block_size;
    settings.yarn_window = stage.window_long;
    settings.trains = !last;
    settings.mtp_weights = mtp_weights(stage, step);
    settings.prefix_weight = prefix_weight(stage, step);
    settings.tied = !config.model.input.tied_to.empty() && step <= schedule.untie_after_step;
    settings.unties = settings.tied && step == schedule.untie_after_step;
    if (frozen(schedule, step)) settings.resting = schedule.freeze.params;
    if (settings.tied) settings.resting.push_back(config.model.input.token);
    const int64_t n = config.optimizer.adam.every_n_steps;
    settings.adam_steps = !last && step % n == n - 1;
    settings.validate = last || validates(schedule, step);
    return settings;
}

}  // namespace speedrun
