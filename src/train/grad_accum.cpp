#include "train/grad_accum.h"

#include <algorithm>
#include <string>

#include "util/error.h"

namespace speedrun {
namespace {

bool fits(const Config& config, int64_t world_size) {
    return std::ranges::all_of(config.schedule.stages, [&](const Stage& stage) {
        return stage.batch_tokens / config.data.micro_batch_tokens % world_size == 0;
    });
}

// Of the counts that fit, the nearest below and above, as text.
std::string nearest_counts(const Config& config, int64_t world_size) {
    int64_t below = world_size - 1, above = world_size + 1, most = 0;
    for (const Stage& stage : config.schedule.stages)
        most = std::max(most, stage.batch_tokens / config.data.micro_batch_tokens);
    while (below > 1 && !fits(config, below)) --below;
    while (above <= most && !fits(config, above)) ++above;
    return std::to_string(below) + (above <= most ? " or " + std::to_string(above) : "");
}

}  // namespace

std::vector<StepShape> step_shapes(const Config& config) {
    std::vector<StepShape> shapes;
    for (int64_t step = 0; step < config.schedule.total_steps(); ++step) {
        const StepSettings settings = settings_at(config, step);
        shapes.push_back({settings.batch_tokens, settings.max_seq_len});
    }
    return shapes;
}

int64_t grad_accum_steps(const Config& config, int64_t world_size) {
    int64_t most = 0;
    for (size_t k = 0; k < config.schedule.stages.size(); ++k) {
        const int64_t rows = config.schedule.stages[k].batch_tokens / config.data.micro_batch_tokens;
        most = std::max(most, rows / world_size);
        if (rows % world_size != 0)
            throw UserError("schedule.stages[" + std::to_string(k) + "].batch_tokens: its " +
                            std::to_string(rows) + " micro-batches of data.micro_batch_tokens = " +
                            std::to_string(config.data.micro_batch_tokens) + " tokens do not divide over " +
                            std::to_string(world_size) + " ranks; the nearest counts that do: " +
                            nearest_counts(config, world_size) + " (or smaller micro-batches)");
    }
    return most;
}

AttentionSettings attention_settings(const StepSettings& settings) {
    return {settings.window_short, settings.window_long, settings.yarn_window, 0};
}

std::vector<at::Tensor> accumulate_gradients(GPT& model, const Config& config,
                                             const std::vector<Batch>& batches, const StepSettings& settings,
                                             const GradReady& grad_ready) {
    const bool divided = config.objective.accumulation == ObjectiveConfig::Accumulation::divide_then_sum;
    const double grad_scale = divided ? 1 / config.objective.grad_divisor : 1;
    AttentionSettings attention = attention_settings(settings);
    attention.longest = settings.max_seq_len;  // where documents are cut
    std::vector<at::Tensor> sums;
    for (const Batch& batch : batches) {
        const bool last = &batch == &batches.back();
        sums.push_back(model.forward_backward(batch, attention, grad_scale, last ? grad_ready : GradReady{}));
    }
    return sums;
}

}  // namespace speedrun
