#include "model/nodes/attention.h"

#include "model/pass.h"

namespace speedrun {

AttentionNode::AttentionNode(GraphBuilder& build, const std::string& name, ValueId q, ValueId k, ValueId v,
                             Window window, AttentionConfig::Kind kind)
    : Node(name, "attention", StepPart::attention),
      q_(q),
      k_(k),
      v_(v),
      window_(window),
      pair_(kind == AttentionConfig::Kind::paired ? 2 : 1),
      heads_(build.model().n_head),
      head_dim_(build.model().head_dim) {
    using Read = GraphBuilder::Read;
    y_ = build.declare(*this, name, heads_ * head_dim_);
    lse_ = build.declare(*this, name + ".lse", heads_, Value::Element::fp32);
    for (const ValueId id : {q, k, v, y_, lse_}) build.read(*this, id, Read::forward_and_backward);
}

// A pair of query and key takes 2 D operations for its score and 2 D for its share of the output; in backward
// twice as many, the scores that are computed again not counted.
NodeCost AttentionNode::cost(const PassShape& shape) const {
    const auto rows = static_cast<double>(shape.tokens);
    const auto& keys_of = pair_ == 2 ? shape.paired_keys : shape.keys;
    const double keys = window_ == Window::short_window ? keys_of.short_window : keys_of.long_window;
    const double channels = static_cast<double>(heads_ * head_dim_), pairs = rows * keys * channels;
    const double cells = rows * channels * static_cast<double>(shape.item),
                 lse = 4 * rows * static_cast<double>(heads_);
    const bool widened = shape.item == 2 && ops::widens_attention();
    const int64_t wide = widened ? shape.tokens * heads_ * head_dim_ * int64_t{sizeof(float)} : 0;
    return {.forward = {.flop = 4 * pairs, .read = 3 * cells, .written = cells + lse},
            .backward = {.flop = 8 * pairs, .read = 5 * cells + lse, .written = 3 * cells},
            .forward_scratch = {.passing = 4 * wide},
            .backward_scratch = {.passing = 8 * wide}};
}

std::string AttentionNode::shape() const {
    return std::to_string(heads_) + "x" + std::to_string(head_dim_) +
           (window_ == Window::short_window ? " short" : " long") + (pair_ == 2 ? " paired" : "");
}

// [T, H * D] as [T, H, D], or of paired heads as [2T, H / 2, D]
at::Tensor AttentionNode::heads_of(const at::Tensor& x) const {
    return x.view({x.size(0) * pair_, heads_ / pair_, head_dim_});
}

at::Tensor AttentionNode::lse_of(const at::Tensor& lse, int64_t tokens) const {
    return lse.view({heads_ / pair_, tokens * pair_});
}

const ops::AttentionMask& AttentionNode::mask_of(const Pass& pass) const {
    const auto& masks = pair_ == 2 ? pass.paired_masks : pass.masks;
    return window_ == Window::short_window ? masks.short_window : masks.long_window;
}

void AttentionNode::forward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    pass.attention.forward(heads_of(ws.value(q_)), heads_of(ws.value(k_)), heads_of(ws.value(v_)),
                           mask_of(pass), pass.rotary.attn_scale(), heads_of(ws.allocate(y_)),
                           lse_of(ws.allocate(lse_), ws.tokens()));
}

void AttentionNode::backward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    const auto dq = ws.grad_target(q_), dk = ws.grad_target(k_), dv = ws.grad_target(v_);
    const at::Tensor own_dq = memory_for(ws, dq), own_dk = memory_for(ws, dk), own_dv = memory_for(ws, dv);
    const ops::AttentionGrads memory{heads_of(own_dq), heads_of(own_dk), heads_of(own_dv)};
    const auto found = pass.attention.backward(heads_of(ws.grad(y_)), heads_of(ws.value(q_)),
                                               heads_of(ws.value(k_)), heads_of(ws.value(v_)),
                                               heads_of(ws.value(y_)), lse_of(ws.value(lse_), ws.tokens()),
                                               mask_of(pass), pass.rotary.attn_scale(), memory);
    hand_over(ws, q_, dq, own_dq, found.dq);
    hand_over(ws, k_, dk, own_dk, found.dk);
    hand_over(ws, v_, dv, own_dv, found.dv);
}

// Where dynamic composition or XSA read an input too, their backward has been there.
at::Tensor AttentionNode::memory_for(Workspace& ws, const Workspace::Target& target) const {
    if (!target.accumulate) return target.tensor;
    return ws.scratch({ws.tokens(), heads_ * head_dim_}, ws.activations());
}

void AttentionNode::hand_over(Workspace& ws, ValueId id, const Workspace::Target& target,
                              const at::Tensor& memory, const at::Tensor& found) const {
    if (!target.accumulate) return ws.replace_grad(id, found);
    target.tensor.add_(found.reshape(target.tensor.sizes()));
    ws.release_scratch(memory);
}

}  // namespace speedrun
