#include "model/nodes/xsa.h"

#include <fmt/format.h>

#include "model/pass.h"
#include "ops/xsa.h"
#include "util/error.h"

namespace speedrun {

XsaNode::XsaNode(GraphBuilder& build, const std::string& path, ValueId y, ValueId v, const Coefficient& alpha)
    : Node(path, "xsa", StepPart::norms),
      y_(y),
      v_(v),
      heads_(build.model().n_head),
      head_dim_(build.model().head_dim) {
    if (alpha.kind == Coefficient::Kind::element) {
        alpha_ = alpha.weight;
        build.use(*this, alpha_, WeightUse::Kind::looked_up, {heads_}, path);
    } else {
        alpha_of_token_ = build.outputs_of_net(alpha, heads_, path);
        build.read(*this, alpha_of_token_.value, GraphBuilder::Read::forward_and_backward);
    }
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

// fp32 [T, H] or [H]
at::Tensor XsaNode::alpha(const Pass& pass) const {
    if (!alpha_.param.empty()) return pass.parameters.used(alpha_);
    return pass.workspace.value(alpha_of_token_.value).narrow(1, alpha_of_token_.first, heads_);
}

at::Tensor XsaNode::dalpha(Pass& pass) const {
    if (!alpha_.param.empty()) return pass.parameters.grad(alpha_);
    return pass.workspace.grad_to_add_to(alpha_of_token_.value).narrow(1, alpha_of_token_.first, heads_);
}

void XsaNode::forward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    ops::xsa(heads_of(ws.value(y_)), heads_of(ws.value(v_)), alpha(pass), heads_of(ws.allocate(out_)));
}

void XsaNode::backward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    const auto dy = ws.grad_target(y_), dv = ws.grad_target(v_);
    check(!dy.accumulate && !dv.accumulate, name() + ": attention's backward comes after its own");
    ops::xsa_backward(heads_of(ws.grad(out_)), heads_of(ws.value(y_)), heads_of(ws.value(v_)), alpha(pass),
                      heads_of(dy.tensor), heads_of(dv.tensor), dalpha(pass));
}

}  // namespace speedrun
