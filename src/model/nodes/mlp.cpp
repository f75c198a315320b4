#include "model/nodes/mlp.h"

#include "model/nodes/product_scratch.h"
#include "model/pass.h"
#include "ops/gemm.h"
#include "ops/relu2.h"

namespace speedrun {
namespace {

// A view [in, out] of a matrix as it is stored.
at::Tensor in_out_view(const at::Tensor& weight, MatrixLayout layout) {
    return layout == MatrixLayout::in_out ? weight : weight.t();
}

std::vector<int64_t> stored_shape(MatrixLayout layout, int64_t in, int64_t out) {
    return layout == MatrixLayout::in_out ? std::vector{in, out} : std::vector{out, in};
}

// dw += x^T dy, dw as it is stored.
void add_weight_gradient(const at::Tensor& x, const at::Tensor& dy, MatrixLayout layout,
                         const at::Tensor& dw) {
    if (layout == MatrixLayout::in_out)
        ops::gemm(x.t(), dy, dw, /*accumulate=*/true);
    else
        ops::gemm(dy.t(), x, dw, /*accumulate=*/true);
}

}  // namespace

MlpNode::MlpNode(GraphBuilder& build, const std::string& name, const MlpConfig& mlp, ValueId x)
    : Node(name, "mlp", StepPart::mlp),
      config_(mlp),
      x_(x),
      d_(build.value(x).channels),
      hidden_(build.model().mlp_hidden),
      grad_item_(build.grad_item(mlp.fc)) {
    using Read = GraphBuilder::Read;
    build.use(*this, mlp.fc, WeightUse::Kind::multiplied, stored_shape(mlp.fc_layout, d_, hidden_),
              name + ".fc");
    build.use(*this, mlp.proj, WeightUse::Kind::multiplied, stored_shape(mlp.proj_layout, hidden_, d_),
              name + ".proj");
    pre_ = build.declare(*this, name + ".pre", hidden_);
    post_ = build.declare(*this, name + ".post", hidden_);
    out_ = build.declare(*this, name, d_);
    for (const ValueId id : {x, pre_, post_}) build.read(*this, id, Read::forward_and_backward);
}

// Two products forward, four backward, relu^2 between them.
NodeCost MlpNode::cost(const PassShape& shape) const {
    const auto rows = static_cast<double>(shape.tokens), item = static_cast<double>(shape.item);
    const double x = rows * static_cast<double>(d_) * item, h = rows * static_cast<double>(hidden_) * item,
                 cells = static_cast<double>(d_ * hidden_), dw = cells * static_cast<double>(grad_item_);
    const auto both = [&](const auto& scratch_of) {
        return larger(scratch_of(d_, hidden_, config_.fc_layout),
                      scratch_of(hidden_, d_, config_.proj_layout));
    };
    return {.forward = {.flop = 4 * rows * cells, .read = x + 2 * h + 2 * cells * item, .written = 2 * h + x},
            .backward = {.flop = 8 * rows * cells,
                         .read = 2 * x + 3 * h + 2 * h + x + 2 * cells * item + 2 * dw,
                         .written = 2 * h + x + 2 * dw},
            .forward_scratch = both([&](int64_t in, int64_t out, MatrixLayout) {
                return forward_scratch(shape.tokens, in, out, shape.item);
            }),
            .backward_scratch = both([&](int64_t in, int64_t out, MatrixLayout layout) {
                return backward_scratch(shape.tokens, in, out, shape.item, layout == MatrixLayout::out_in);
            })};
}

std::string MlpNode::shape() const {
    return std::to_string(d_) + "x" + std::to_string(hidden_);
}

at::Tensor MlpNode::fc_in_out(const at::Tensor& weight) const {
    return in_out_view(weight, config_.fc_layout);  // [d, hidden]
}

at::Tensor MlpNode::proj_in_out(const at::Tensor& weight) const {
    return in_out_view(weight, config_.proj_layout);  // [hidden, d]
}

void MlpNode::forward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    ops::gemm(ws.value(x_), fc_in_out(pass.parameters.used(config_.fc)), ws.allocate(pre_));  // [T, hidden]
    ops::relu2(ws.value(pre_), ws.allocate(post_));
    ops::gemm(ws.value(post_), proj_in_out(pass.parameters.used(config_.proj)), ws.allocate(out_));  // [T, d]
}

void MlpNode::backward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    const at::Tensor dout = ws.grad(out_);  // [T, d]
    add_weight_gradient(ws.value(post_), dout, config_.proj_layout, pass.parameters.grad(config_.proj));
    const at::Tensor dpre = ws.grad_target(pre_).tensor;  // [T, hidden], first of post
    ops::gemm(dout, proj_in_out(pass.parameters.used(config_.proj)).t(), dpre);
    ops::relu2_backward(dpre, ws.value(pre_), dpre);
    add_weight_gradient(ws.value(x_), dpre, config_.fc_layout, pass.parameters.grad(config_.fc));
    const auto [dx, accumulate] = ws.grad_target(x_);
    ops::gemm(dpre, fc_in_out(pass.parameters.used(config_.fc)).t(), dx, accumulate);
}

}  // namespace speedrun
