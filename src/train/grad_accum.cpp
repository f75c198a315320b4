#include "train/grad_accum.h"

#include <algorithm>
#include <string>

#include "util/error.h"

namespace speedrun {
std::vector<at::Tensor> accumulate_gradients(GPT& model, const Config& config,
                                             const std::vector<Batch>& batches, const StepSettings& settings,
                                             const GradReady& grad_ready) {
    const bool divided = config.objective.accumulation == ObjectiveConfig::Accumulation::divide_then_sum;
    const double grad_scale = divided ? 1 / config.objective.grad_divisor : 1;
    std::vector<at::Tensor> sums;
    for (const Batch& batch : batches) {
        const bool last = &batch == &batches.back();
        sums.push_back(model.forward_backward(batch, settings, grad_scale, last ? grad_ready : GradReady{}));
    }
    return sums;
}

}  // namespace speedrun
