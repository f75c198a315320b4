#include "model/nodes/rotary.h"

#include "model/pass.h"
#include "ops/rotary.h"
#include "util/error.h"

namespace speedrun {

RotaryNode::RotaryNode(GraphBuilder& build, const std::string& name, ValueId x, AttentionConfig::Kind kind)
    : Node(name, "rotary", StepPart::norms),
      x_(x),
      paired_(kind == AttentionConfig::Kind::paired),
      heads_(build.model().n_head),
      head_dim_(build.model().head_dim),
      table_item_(build.model().rope.table_dtype == Dtype::bf16 ? 2 : 4),
      eps_(build.model().norm_eps) {
    using Read = GraphBuilder::Read;
    build.read(*this, x, Read::forward_and_backward);
    y_ = build.declare(*this, name, heads_ * head_dim_);
    rstd_ = build.declare(*this, name + ".rstd", heads_, Value::Element::fp32);
    build.read(*this, rstd_, Read::forward_and_backward);
}

NodeCost RotaryNode::cost(const PassShape& shape) const {
    const auto rows = static_cast<double>(shape.tokens);
    const double cells = rows * static_cast<double>(heads_ * head_dim_ * shape.item),
                 tables = rows * static_cast<double>(head_dim_ * table_item_),
                 numbers = 4 * rows * static_cast<double>(heads_);
    return {.forward = {.read = cells + tables, .written = cells + numbers},
            .backward = {.read = 2 * cells + tables + numbers, .written = cells}};
}

std::string RotaryNode::shape() const {
    return std::to_string(heads_) + "x" + std::to_string(head_dim_);
}

// [T, H * D] as [T, H, D]
at::Tensor RotaryNode::heads_of(const at::Tensor& x) const {
    return x.view({x.size(0), heads_, head_dim_});
}

void RotaryNode::forward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    ops::qk_norm_rotary(heads_of(ws.value(x_)), pass.rotary.tables(paired_), eps_, heads_of(ws.allocate(y_)),
                        ws.allocate(rstd_));
}

void RotaryNode::backward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    const auto [dx, accumulate] = ws.grad_target(x_);
    check(!accumulate, name() + ": its input has another reader");
    ops::qk_norm_rotary_backward(heads_of(ws.grad(y_)), heads_of(ws.value(x_)), pass.rotary.tables(paired_),
                                 ws.value(rstd_), heads_of(dx));
}

}  // namespace speedrun
