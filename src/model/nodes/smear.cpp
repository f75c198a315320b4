#include "model/nodes/smear.h"

#include "model/pass.h"
#include "ops/smear.h"

namespace speedrun {

SmearNode::SmearNode(GraphBuilder& build, const std::string& name, ValueId e,
                     const TermCoefficient& coefficient)
    : Node(name, "smear", StepPart::norms), e_(e), factor_(coefficient.factor), d_(build.value(e).channels) {
    using Read = GraphBuilder::Read;
    build.read(*this, e, Read::forward_and_backward);
    if (factor_.value >= 0) build.read(*this, factor_.value, Read::forward_and_backward);
    lambda_ = build.add_scalars(*this, std::span(&coefficient.scalar, 1));
    out_ = build.declare(*this, name, d_);
}

NodeCost SmearNode::cost(const PassShape& shape) const {
    const auto rows = static_cast<double>(shape.tokens);
    const double cells = rows * static_cast<double>(d_ * shape.item);
    return {.forward = {.read = cells + 4 * rows, .written = cells},
            .backward = {.read = 2 * cells + 4 * rows, .written = cells + 4 * rows}};
}

std::string SmearNode::shape() const {
    return std::to_string(d_);
}

void SmearNode::forward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    const at::Tensor factor = factor_.value < 0 ? at::Tensor() : ws.value(factor_.value).view({-1});
    ops::smear(ws.value(e_), pass.scalars.values(lambda_, 1), factor, ws.allocate(out_));
}

void SmearNode::backward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    at::Tensor factor, dfactor;
    if (factor_.value >= 0) {
        factor = ws.value(factor_.value).view({-1});
        dfactor = ws.grad_to_add_to(factor_.value).view({-1});
    }
    const auto [de, accumulate] = ws.grad_target(e_);
    const at::Tensor target = accumulate ? ws.scratch({ws.tokens(), d_}, ws.activations()) : de;
    ops::smear_backward(ws.grad(out_), ws.value(e_), pass.scalars.values(lambda_, 1), factor, target, dfactor,
                        pass.scalars.grads(lambda_, 1));
    if (!accumulate) return;
    de.add_(target);
    ws.release_scratch(target);
}

}  // namespace speedrun
