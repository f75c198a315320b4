#include "model/nodes/head.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "model/pass.h"
#include "ops/cpu/head_loss.h"
#include "util/error.h"
#include "util/text.h"

namespace speedrun {

static_assert(most_mtp_targets == ops::most_targets);

namespace {

ops::Softcap softcap_of(const ModelConfig::Output::Softcap& config) {
    using Form = ModelConfig::Output::Softcap::Form;
    return {config.a, config.b, config.c,
            config.form == Form::rsqrt ? ops::Softcap::Form::rsqrt : ops::Softcap::Form::sigmoid};
}

}  // namespace

HeadNode::HeadNode(GraphBuilder& build, ValueId x)
    : Node("model.output.head", "head", StepPart::head),
      x_(x),
      weight_(build.whole(build.model().output.head, "model.output.head")),
      bias_(build.model().output.head_bias),
      softcap_(softcap_of(build.model().output.softcap)),
      vocab_(build.model().vocab_size),
      d_(build.model().d_model),
      grad_item_(build.grad_item(weight_)) {
    const auto& head = build.config().numerics.lm_head;
    if (head.format == NumericsConfig::Head::Format::fp8)
        fp8_ = {head.x_scale, head.w_scale, head.grad_scale};
    build.use(*this, weight_, WeightUse::Kind::multiplied, {vocab_, d_}, name());
    if (!bias_.param.empty())
        build.use(*this, bias_, WeightUse::Kind::multiplied, {vocab_}, "model.output.head_bias");
    if (!bias_.param.empty() && fp8_)
        build.report().fail("model.output.head_bias", "a head in 8-bit floats has no bias",
                            {in_quotes(bias_.param), "absent, or another numerics.lm_head.format", ""});
    build.read(*this, x, GraphBuilder::Read::forward);
}

// All three products belong to the forward of training.
NodeCost HeadNode::cost(const PassShape& shape) const {
    const auto rows = static_cast<double>(shape.tokens), item = static_cast<double>(shape.item);
    const double cells = static_cast<double>(vocab_ * d_), x = rows * static_cast<double>(d_) * item;
    const int64_t gpu = gpu_bytes(std::min(shape.tokens, ops::gpu_head_rows), shape.item);
    const auto scratch = ops::cpu::head_scratch(shape.tokens, vocab_, d_, shape.item, grad_item_ == 2);
    return {.forward = {.head_flop = 6 * rows * cells,
                        .read = x + cells * (item + static_cast<double>(grad_item_)),
                        .written = x + cells * static_cast<double>(grad_item_) + 4 * rows},
            .backward = {},
            .forward_scratch = {.passing = scratch.passing, .gpu = gpu},
            .backward_scratch = {.kept = scratch.kept, .passing = scratch.passing, .gpu = gpu}};
}

// The logits; in FP8 beside them their gradient in 8 bits and the same transposed; weights and inputs both
// ways; and the weights' gradient in fp32 before it is added.
int64_t HeadNode::gpu_bytes(int64_t rows, int64_t item) const {
    constexpr int64_t wide = 4;
    const int64_t logits = rows * vocab_;
    return fp8_ ? logits * (item + 2) + (2 + wide) * vocab_ * d_ + 2 * rows * d_ : logits * item;
}

std::string HeadNode::shape() const {
    return std::to_string(d_) + "x" + std::to_string(vocab_);
}

ops::HeadWeight HeadNode::used(const Pass& pass) const {
    const ParameterTable& parameters = pass.parameters;
    return {parameters.used(weight_), bias_.param.empty() ? at::Tensor() : parameters.used(bias_)};
}

ops::HeadWeight HeadNode::grad(Pass& pass) const {
    const ParameterTable& parameters = pass.parameters;
    return {parameters.grad(weight_), bias_.param.empty() ? at::Tensor() : parameters.grad(bias_)};
}

void HeadNode::forward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    if (pass.wanted_logits >= 0) {
        pass.logits = logits(pass);
        return;
    }
    if (!ws.training()) {
        ops::head_loss(ws.value(x_), used(pass), pass.targets, softcap_, pass.loss_per_token);
        return;
    }
    const auto dx = ws.grad_target(x_);
    check(!dx.accumulate, "the head is the only reader of its input");
    ops::head_loss_backward(ws.value(x_), used(pass), pass.targets, softcap_, pass.grad_scale,
                            pass.loss_per_token, dx.tensor, grad(pass), fp8_);
}

at::Tensor HeadNode::logits(Pass& pass) const {
    const at::Tensor x = pass.workspace.value(x_)[pass.wanted_logits].to(at::kFloat);  // [d]
    const ops::HeadWeight head = used(pass);
    at::Tensor z = at::mv(head.w.to(at::kFloat), x);
    if (head.bias.defined()) z.add_(head.bias);
    return ops::capped(z, softcap_);
}

}  // namespace speedrun
