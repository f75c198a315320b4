#include "model/nodes/coef_net.h"

#include <fmt/format.h>

#include "model/nodes/product_scratch.h"
#include "model/pass.h"
#include "ops/gemm.h"

namespace speedrun {

CoefNetNode::CoefNetNode(GraphBuilder& build, const CoefNet& net, ValueId input, const std::string& path)
    : Node(path, "coef_net", StepPart::norms),
      w1_(net.w1),
      w2_(net.w2),
      b2_(net.b2),
      scale_(build.add_scalars(*this, std::span(&net.scale, 1))),
      trains_scale_(build.trainable(scale_)),
      input_(input),
      channels_(build.value(input).channels),
      hidden_count_(net.hidden()),
      outputs_count_(net.outputs()),
      grad_item_(build.grad_item(net.w1)) {
    using Read = GraphBuilder::Read;
    if (build.term(net.scale, {}, path + ".scale").factor.value >= 0)
        build.report().fail(path + ".scale", "differs from token to token", {"", "numbers and elements", ""});
    build.use(*this, w1_, WeightUse::Kind::multiplied, {hidden_count_, channels_}, path + ".w1");
    build.use(*this, w2_, WeightUse::Kind::multiplied, {outputs_count_, hidden_count_}, path + ".w2");
    build.use(*this, b2_, WeightUse::Kind::multiplied, {outputs_count_}, path + ".b2");
    hidden_ = build.declare(*this, path + ".hidden", hidden_count_);
    values_ = build.declare(*this, path, outputs_count_, Value::Element::fp32);
    build.sum_gradients(values_);
    for (const ValueId id : {input, hidden_}) build.read(*this, id, Read::forward_and_backward);
}

NodeCost CoefNetNode::cost(const PassShape& shape) const {
    const auto rows = static_cast<double>(shape.tokens), item = static_cast<double>(shape.item);
    const auto hidden = static_cast<double>(hidden_count_), outputs = static_cast<double>(outputs_count_);
    const double input = rows * static_cast<double>(channels_) * item, h = rows * hidden * item,
                 values = 4 * rows * outputs;
    const double cells = hidden * (static_cast<double>(channels_) + outputs), flop = 2 * rows * cells,
                 dw = cells * static_cast<double>(grad_item_);
    return {.forward = {.flop = flop, .read = input + cells * item, .written = h + values},
            .backward = {.flop = 2 * flop,
                         .read = values + 2 * h + 2 * input + cells * item + dw,
                         .written = h + input + dw},
            .forward_scratch = forward_scratch(shape.tokens, channels_, hidden_count_, shape.item),
            .backward_scratch = backward_scratch(shape.tokens, channels_, hidden_count_, shape.item, true)};
}

std::string CoefNetNode::shape() const {
    return fmt::format("{}x{}x{}", channels_, hidden_count_, outputs_count_);
}

ops::CoefNetWeights CoefNetNode::weights(const Pass& pass) const {
    return {pass.parameters.used(w2_), pass.parameters.used(b2_), pass.scalars.values(scale_, 1)};
}

ops::CoefNetWeights CoefNetNode::grads(const Pass& pass) const {
    return {pass.parameters.grad(w2_), pass.parameters.grad(b2_),
            trains_scale_ ? pass.scalars.grads(scale_, 1) : at::Tensor()};
}

void CoefNetNode::forward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    const ParameterTable& parameters = pass.parameters;
    const at::Tensor hidden = ws.allocate(hidden_);  // [T, K]
    ops::gemm(ws.value(input_), parameters.used(w1_).t(), hidden);
    ops::coef_net(hidden, weights(pass), ws.allocate(values_));
}

void CoefNetNode::backward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    const ParameterTable& parameters = pass.parameters;
    const at::Tensor dhidden = ws.grad_target(hidden_).tensor;  // [T, K]
    ops::coef_net_backward(ws.grad(values_), ws.value(hidden_), weights(pass), dhidden, grads(pass));
    ops::gemm(dhidden.t(), ws.value(input_), parameters.grad(w1_), /*accumulate=*/true);
    const auto [dinput, accumulate] = ws.grad_target(input_);
    ops::gemm(dhidden, parameters.used(w1_), dinput, accumulate);
}

}  // namespace speedrun
