#include "model/nodes/gain.h"

#include "model/pass.h"
#include "ops/affine.h"

namespace speedrun {

GainNode::GainNode(GraphBuilder& build, const std::string& name, ValueId x, const WeightRef& gain)
    : Node(name, "gain", StepPart::norms), x_(x), gain_(gain), d_(build.value(x).channels) {
    build.use(*this, gain, WeightUse::Kind::multiplied, {d_}, name);
    build.read(*this, x, GraphBuilder::Read::forward_and_backward);
    y_ = build.declare(*this, name, d_);
}

NodeCost GainNode::cost(const PassShape& shape) const {
    const double cells = static_cast<double>(shape.tokens) * static_cast<double>(d_ * shape.item);
    return {.forward = {.read = cells, .written = cells}, .backward = {.read = 2 * cells, .written = cells}};
}

std::string GainNode::shape() const {
    return std::to_string(d_);
}

void GainNode::forward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    ops::multiply_gain(ws.value(x_), pass.parameters.used(gain_), ws.allocate(y_));  // [T, d]
}

void GainNode::backward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    const auto [dx, accumulate] = ws.grad_target(x_);
    ops::multiply_gain_backward(ws.grad(y_), ws.value(x_), pass.parameters.used(gain_), dx, accumulate,
                                pass.parameters.grad(gain_));
}

}  // namespace speedrun
