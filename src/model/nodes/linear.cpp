#include "model/nodes/linear.h"

#include "model/nodes/product_scratch.h"
#include "model/pass.h"
#include "ops/affine.h"
#include "ops/gemm.h"

namespace speedrun {

LinearNode::LinearNode(GraphBuilder& build, const std::string& name, ValueId x, const WeightRef& weight,
                       MatrixLayout layout, int64_t out, StepPart part, const std::string& path,
                       const WeightRef& bias)
    : Node(name, "linear", part),
      x_(x),
      weight_(weight),
      bias_(bias),
      layout_(layout),
      in_(build.value(x).channels),
      out_(out),
      grad_item_(build.grad_item(weight)) {
    const bool out_in = layout == MatrixLayout::out_in;
    build.use(*this, weight, WeightUse::Kind::multiplied,
              out_in ? std::vector{out_, in_} : std::vector{in_, out_}, path);
    if (!bias.param.empty()) build.use(*this, bias, WeightUse::Kind::multiplied, {out_}, path + "_bias");
    build.read(*this, x, GraphBuilder::Read::forward_and_backward);
    y_ = build.declare(*this, name, out_);
}

NodeCost LinearNode::cost(const PassShape& shape) const {
    const auto rows = static_cast<double>(shape.tokens), item = static_cast<double>(shape.item);
    const double x = rows * static_cast<double>(in_) * item, y = rows * static_cast<double>(out_) * item,
                 cells = static_cast<double>(in_ * out_), flop = 2 * rows * cells;
    const double dw = cells * static_cast<double>(grad_item_);
    const bool out_in = layout_ == MatrixLayout::out_in;
    return {.forward = {.flop = flop, .read = x + cells * item, .written = y},
            .backward = {.flop = 2 * flop, .read = 2 * y + x + cells * item + dw, .written = x + dw},
            .forward_scratch = forward_scratch(shape.tokens, in_, out_, shape.item),
            .backward_scratch = backward_scratch(shape.tokens, in_, out_, shape.item, out_in)};
}

std::string LinearNode::shape() const {
    return std::to_string(in_) + "x" + std::to_string(out_);
}

// A view [in, out].
at::Tensor LinearNode::in_out(const at::Tensor& weight) const {
    return layout_ == MatrixLayout::out_in ? weight.t() : weight;
}

void LinearNode::forward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    const at::Tensor y = ws.allocate(y_);  // [T, out]
    ops::gemm(ws.value(x_), in_out(pass.parameters.used(weight_)), y);
    if (!bias_.param.empty()) ops::add_bias(y, pass.parameters.used(bias_));
}

void LinearNode::backward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    const at::Tensor dy = ws.grad(y_);                    // [T, out]
    const at::Tensor dw = pass.parameters.grad(weight_);  // as stored
    if (layout_ == MatrixLayout::out_in)
        ops::gemm(dy.t(), ws.value(x_), dw, /*accumulate=*/true);
    else
        ops::gemm(ws.value(x_).t(), dy, dw, /*accumulate=*/true);
    if (!bias_.param.empty()) ops::add_bias_backward(dy, pass.parameters.grad(bias_));
    const auto [dx, accumulate] = ws.grad_target(x_);  // [T, in]
    ops::gemm(dy, in_out(pass.parameters.used(weight_)).t(), dx, accumulate);
}

}  // namespace speedrun
