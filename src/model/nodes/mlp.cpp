#include "model/nodes/mlp.h"

#include "model/nodes/product_scratch.h"
#include "model/pass.h"
#include "ops/affine.h"
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

// Biases that name no parameter are none.
void add_bias(Pass& pass, const WeightRef& bias, const at::Tensor& y) {
    if (!bias.param.empty()) ops::add_bias(y, pass.parameters.used(bias));
}

void add_bias_gradient(Pass& pass, const WeightRef& bias, const at::Tensor& dy) {
    if (!bias.param.empty()) ops::add_bias_backward(dy, pass.parameters.grad(bias));
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
    const auto use_bias = [&](const WeightRef& bias, int64_t channels, const char* key) {
        if (!bias.param.empty()) build.use(*this, bias, WeightUse::Kind::multiplied, {channels}, name + key);
    };
    use_bias(mlp.fc_bias, hidden_, ".fc_bias");
    use_bias(mlp.proj_bias, d_, ".proj_bias");
    const NumericsConfig::Mlp& numerics = build.config().numerics.mlp;
    build.read(*this, x, Read::forward_and_backward);
    if (numerics.save_for_backward == NumericsConfig::Mlp::Saved::pre_and_post) {
        pre_ = build.declare(*this, name + ".pre", hidden_);
        build.read(*this, pre_, Read::forward_and_backward);
    }
    post_ = build.declare(*this, name + ".post", hidden_);
    build.read(*this, post_, Read::forward_and_backward);
    out_ = build.declare(*this, name, d_);
    const auto fp8 = [&](NumericsConfig::Mlp::Format format, const WeightUse& use, MatrixLayout layout,
                         bool delayed) -> int64_t {
        if (format != NumericsConfig::Mlp::Format::fp8) return -1;
        return build.in_fp8({use.weight, layout == MatrixLayout::in_out, delayed});
    };
    fp8_fc_ = fp8(numerics.up.format, weights()[0], mlp.fc_layout, /*delayed=*/false);
    fp8_proj_ = fp8(numerics.down.format, weights()[1], mlp.proj_layout, /*delayed=*/true);
}

// Two products forward, four backward, relu^2 between them.
NodeCost MlpNode::cost(const PassShape& shape) const {
    const auto rows = static_cast<double>(shape.tokens), item = static_cast<double>(shape.item);
    const double x = rows * static_cast<double>(d_) * item, h = rows * static_cast<double>(hidden_) * item,
                 cells = static_cast<double>(d_ * hidden_), dw = cells * static_cast<double>(grad_item_);
    const int in_fp8 = (fp8_fc_ >= 0 ? 1 : 0) + (fp8_proj_ >= 0 ? 1 : 0);
    const auto both = [&](const auto& scratch_of) {
        return larger(scratch_of(d_, hidden_, config_.fc_layout),
                      scratch_of(hidden_, d_, config_.proj_layout));
    };
    const Scratch forward = both([&](int64_t in, int64_t out, MatrixLayout) {
        return forward_scratch(shape.tokens, in, out, shape.item);
    });
    return {.forward = {.flop = 4 * rows * cells,
                        .fp8_flop = 2 * in_fp8 * rows * cells,
                        .read = x + 2 * h + 2 * cells * item,
                        .written = 2 * h + x},
            .backward = {.flop = 8 * rows * cells,
                         .read = 2 * x + 3 * h + 2 * h + x + 2 * cells * item + 2 * dw,
                         .written = 2 * h + x + 2 * dw},
            .forward_scratch = larger(forward, fp8_scratch(shape)),
            .backward_scratch = both([&](int64_t in, int64_t out, MatrixLayout layout) {
                return backward_scratch(shape.tokens, in, out, shape.item, layout == MatrixLayout::out_in);
            })};
}

// What is multiplied, in 8-bit floats; a CPU stores those as activations, and sums in fp32.
Scratch MlpNode::fp8_scratch(const PassShape& shape) const {
    constexpr int64_t wide = 4;
    const int64_t sum_item = shape.item == wide ? 0 : wide;
    const auto of_product = [&](int64_t fp8, int64_t in, int64_t out) -> Scratch {
        if (fp8 < 0) return {};
        return {.passing = shape.tokens * (in * shape.item + out * sum_item), .gpu = shape.tokens * in};
    };
    return larger(of_product(fp8_fc_, d_, hidden_), of_product(fp8_proj_, hidden_, d_));
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
    const Fp8Weights& fp8 = pass.parameters.fp8();
    const at::Tensor pre = ws.allocate(pre_ >= 0 ? pre_ : post_);  // [T, hidden]
    if (fp8_fc_ >= 0 && ws.training())
        fp8.multiply(ws.value(x_), fp8_fc_, pre);
    else
        ops::gemm(ws.value(x_), fc_in_out(pass.parameters.used(config_.fc)), pre);
    add_bias(pass, config_.fc_bias, pre);
    const at::Tensor post = pre_ >= 0 ? ws.allocate(post_) : pre, out = ws.allocate(out_);  // out [T, d]
    if (fp8_proj_ >= 0 && ws.training()) {
        fp8.multiply_relu2(pre, post, fp8_proj_, out);
    } else {
        ops::relu2(pre, post);
        ops::gemm(post, proj_in_out(pass.parameters.used(config_.proj)), out);
    }
    add_bias(pass, config_.proj_bias, out);
}

void MlpNode::backward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    const at::Tensor dout = ws.grad(out_), post = ws.value(post_);  // [T, d], [T, hidden]
    add_weight_gradient(post, dout, config_.proj_layout, pass.parameters.grad(config_.proj));
    add_bias_gradient(pass, config_.proj_bias, dout);
    const at::Tensor dpre = ws.grad_target(pre_ >= 0 ? pre_ : post_).tensor;  // first of post
    ops::gemm(dout, proj_in_out(pass.parameters.used(config_.proj)).t(), dpre);
    if (pre_ >= 0)
        ops::relu2_backward(dpre, ws.value(pre_), dpre);
    else
        ops::relu2_backward_of_output(dpre, post, dpre);
    add_weight_gradient(ws.value(x_), dpre, config_.fc_layout, pass.parameters.grad(config_.fc));
    add_bias_gradient(pass, config_.fc_bias, dpre);
    const auto [dx, accumulate] = ws.grad_target(x_);
    ops::gemm(dpre, fc_in_out(pass.parameters.used(config_.fc)).t(), dx, accumulate);
}

}  // namespace speedrun
