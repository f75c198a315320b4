#include "model/nodes/dynamic_composition.h"

#include <fmt/format.h>

#include "model/pass.h"
#include "util/error.h"

namespace speedrun {
namespace {

static_assert(DynamicComposition::longest_window <= ops::longest_composition);

at::Tensor columns_of(const at::Tensor& all, const TokenFactor& factor) {
    return all.narrow(1, factor.first, factor.columns);  // [T, heads]
}

}  // namespace

DynamicCompositionNode::DynamicCompositionNode(GraphBuilder& build, const std::string& path,
                                               const Heads& heads, int64_t window, const TokenFactor& w1,
                                               const TokenFactor& w2)
    : Node(path, "dynamic_composition", StepPart::attention),
      values_(heads),
      window_(window),
      w1_(w1),
      w2_(w2),
      heads_(build.model().n_head),
      head_dim_(build.model().head_dim) {
    using Read = GraphBuilder::Read;
    check(w1.columns == heads_ && w2.columns == heads_, path + ": its weights are not one a head");
    for (const ValueId id : {heads.q, heads.k, heads.v, w1.value, w2.value})
        build.read(*this, id, Read::forward_and_backward);
    build.read(*this, heads.y, Read::forward);
    out_ = build.declare(*this, path, heads_ * head_dim_);
}

// As attention: a pair of query and key takes 2 D operations for its score and 2 D for its share of the
// output, in each head; in backward twice as many, what is computed again not counted.
NodeCost DynamicCompositionNode::cost(const PassShape& shape) const {
    const auto rows = static_cast<double>(shape.tokens);
    const double channels = static_cast<double>(heads_ * head_dim_),
                 pairs = rows * mean_keys(window_ - 1, shape.document) * channels,
                 cells = rows * channels * static_cast<double>(shape.item);
    const int64_t weight = shape.tokens * heads_ * int64_t{sizeof(float)};
    const auto weights = 2 * static_cast<double>(weight);
    return {.forward = {.flop = 4 * pairs, .read = 4 * cells + weights, .written = cells},
            .backward = {.flop = 8 * pairs, .read = 4 * cells + 2 * weights, .written = 3 * cells + weights},
            .backward_scratch = {.gpu = 3 * weight}};
}

std::string DynamicCompositionNode::shape() const {
    return fmt::format("{}x{} {} keys", heads_, head_dim_, window_);
}

// [T, H * D] as [T, H, D]
at::Tensor DynamicCompositionNode::heads_of(const at::Tensor& x) const {
    return x.view({x.size(0), heads_, head_dim_});
}

ops::Composition DynamicCompositionNode::input(Pass& pass) const {
    const Workspace& ws = pass.workspace;
    return {.q = heads_of(ws.value(values_.q)),
            .k = heads_of(ws.value(values_.k)),
            .v = heads_of(ws.value(values_.v)),
            .w1 = columns_of(ws.value(w1_.value), w1_),
            .w2 = columns_of(ws.value(w2_.value), w2_),
            .cu_seqlens = pass.masks.short_window.cu_seqlens,
            .window = window_,
            .scale = pass.rotary.attn_scale()};
}

void DynamicCompositionNode::forward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    ops::dynamic_composition(input(pass), heads_of(ws.value(values_.y)), heads_of(ws.allocate(out_)));
}

// Attention's backward comes next and adds its own gradients.
void DynamicCompositionNode::backward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    const auto dq = ws.grad_target(values_.q), dk = ws.grad_target(values_.k), dv = ws.grad_target(values_.v);
    check(!dq.accumulate && !dk.accumulate, name() + ": attention's backward comes after its own");
    ops::dynamic_composition_backward(input(pass), heads_of(ws.grad(out_)),
                                      {.dq = heads_of(dq.tensor),
                                       .dk = heads_of(dk.tensor),
                                       .dv = heads_of(dv.tensor),
                                       .accumulate = dv.accumulate,
                                       .dw1 = columns_of(ws.grad_to_add_to(w1_.value), w1_),
                                       .dw2 = columns_of(ws.grad_to_add_to(w2_.value), w2_)});
    ws.share_grad(out_, values_.y);
}

}  // namespace speedrun
