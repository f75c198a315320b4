#include "model/nodes/xsa.h"

#include <fmt/format.h>

#include "model/pass.h"
#include "ops/xsa.h"
#include "util/error.h"

namespace speedrun {

XsaNode::XsaNode(GraphBuilder& build, const std::string& path, ValueId y, ValueId v, const WeightRef& alpha)
    : Node(path, "xsa", StepPart::norms),
      y_(y),
      v_(v),
      alpha_(alpha),
      heads_(build.model().n_head),
      head_dim_(build.model().head_dim) {
    build.use(*this, alpha, WeightUse::Kind::looked_up, {heads_}, path + ".alpha");
    for (const ValueId id : {y, v}) build.read(*this, id, GraphBuilder::Read::forward_and_backward);
    out_ = build.declare(*this, path, heads_ * head_dim_);
}

NodeCost XsaNode::cost(const PassShape& shape) const {
    const auto cells = static_cast<double>(shape.tokens * heads_ * head_dim_ * shape.item);
    return {.forward = {.read = 2 * cells, .written = cells},
            .backward = {.read = 3 * cells, .written = 2 * cells}};
}

std::string XsaNode::shape() const {
    return fmt::format("{}x{}", heads_, head_dim_);
}

// [T, H * D] as [T, H, D]
at::Tensor XsaNode::heads_of(const at::Tensor& x) const {
    return x.view({x.size(0), heads_, head_dim_});
}

void XsaNode::forward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    ops::xsa(heads_of(ws.value(y_)), heads_of(ws.value(v_)), pass.parameters.used(alpha_),
             heads_of(ws.allocate(out_)));
}

void XsaNode::backward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    const auto dy = ws.grad_target(y_), dv = ws.grad_target(v_);
    check(!dy.accumulate && !dv.accumulate, name() + ": attention's backward comes after its own");
    ops::xsa_backward(heads_of(ws.grad(out_)), heads_of(ws.value(y_)), heads_of(ws.value(v_)),
                      pass.parameters.used(alpha_), heads_of(dy.tensor), heads_of(dv.tensor),
                      pass.parameters.grad(alpha_));
}

}  // namespace speedrun
