#include "model/nodes/norm.h"

#include "model/pass.h"
#include "ops/norm.h"

namespace speedrun {

NormNode::NormNode(GraphBuilder& build, const std::string& name, ValueId x)
    : Node(name, "norm", StepPart::norms), x_(x), eps_(build.model().norm_eps), d_(build.value(x).channels) {
    using Read = GraphBuilder::Read;
    y_ = build.declare(*this, name, d_);
    rstd_ = build.declare(*this, name + ".rstd", 1, Value::Element::fp32);
    build.read(*this, x, Read::forward_and_backward);
    build.read(*this, rstd_, Read::forward_and_backward);
}

NodeCost NormNode::cost(const PassShape& shape) const {
    const auto rows = static_cast<double>(shape.tokens);
    const double cells = rows * static_cast<double>(d_ * shape.item);
    return {.forward = {.read = cells, .written = cells + 4 * rows},
            .backward = {.read = 2 * cells + 4 * rows, .written = cells}};
}

std::string NormNode::shape() const {
    return std::to_string(d_);
}

void NormNode::forward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    ops::rms_norm(ws.value(x_), eps_, ws.allocate(y_), ws.allocate(rstd_).view({-1}));
}

void NormNode::backward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    const auto [dx, accumulate] = ws.grad_target(x_);
    ops::rms_norm_backward(ws.grad(y_), ws.value(x_), ws.value(rstd_).view({-1}), dx, accumulate);
}

}  // namespace speedrun
