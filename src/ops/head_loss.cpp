#include "ops/head_loss.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>

#include "ops/cpu/brgemm.h"
#include "ops/cpu/head_loss.h"
#include "ops/cpu/softcap.h"
#include "ops/cuda/head.h"
#include "ops/gemm.h"
#include "util/error.h"

namespace speedrun::ops {

namespace {

bool is_fp32_or_bf16(const at::Tensor& x) {
    return x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16;
}

void check_inputs(const at::Tensor& x, const HeadWeight& head, const Targets& targets,
                  const at::Tensor& loss) {
    const at::Tensor& w = head.w;
    check(x.dim() == 2 && w.dim() == 2 && x.size(1) == w.size(1) && x.size(1) > 0 && w.size(0) > 0,
          "head_loss: x is not [T, d] or w not [V, d]");
    check(!head.bias.defined() ||
              (head.bias.sizes() == w.sizes().slice(0, 1) && head.bias.device() == w.device()),
          "head_loss: the bias is not [V]");
    const at::Tensor& next = targets.next;
    check(next.dim() == 1 && next.size(0) == x.size(0) && next.scalar_type() == at::kLong,
          "head_loss: targets are not int64 [T]");
    check(targets.count() >= 1 && targets.count() <= most_targets, "head_loss: too many targets a token");
    check(!targets.prefix_of.defined() ||
              (targets.prefix_of.scalar_type() == at::kLong && targets.prefix_of.is_contiguous() &&
               targets.prefix_of.sizes() == w.sizes().slice(0, 1) && targets.prefix_weight.numel() == 1),
          "head_loss: prefixes are not a contiguous int64 [V] with one weight");
    check(loss.dim() == 1 && loss.size(0) == x.size(0) && loss.is_contiguous(),
          "head_loss: loss_per_token is not a contiguous [T]");
    check(x.device() == w.device() && x.device() == next.device() && x.device() == loss.device(),
          "head_loss: tensors on several devices");
}

void check_gradients(const at::Tensor& x, const HeadWeight& head, const at::Tensor& dx,
                     const HeadWeight& dw) {
    check(dx.sizes() == x.sizes() && dx.scalar_type() == x.scalar_type() && dx.is_contiguous(),
          "head_loss_backward: dx is not contiguous with x's shape and dtype");
    check(dw.w.sizes() == head.w.sizes() && dw.w.is_contiguous(),
          "head_loss_backward: dw is not contiguous with w's shape");
    check(dw.bias.defined() == head.bias.defined() &&
              (!dw.bias.defined() || dw.bias.sizes() == head.bias.sizes()),
          "head_loss_backward: the bias and its gradient differ in shape");
}

void check_target(const char* what, int64_t target, int64_t token, int64_t least, int64_t vocab) {
    check(target >= least && target < vocab, std::string("head_loss: ") + what + " " +
                                                 std::to_string(target) + " of token " +
                                                 std::to_string(token) + " is outside [" +
                                                 std::to_string(least) + ", " + std::to_string(vocab) + ")");
}

void check_targets(const at::Tensor& targets, const int64_t* prefix_of, int64_t vocab) {
    const int64_t* t = targets.const_data_ptr<int64_t>();
    for (int64_t i = 0; i < targets.numel(); ++i) {
        check_target("target", t[i], i, 0, vocab);
        if (prefix_of != nullptr) check_target("prefix", prefix_of[t[i]], i, -1, vocab);
    }
}

// Null where no token has a prefix.
const int64_t* prefixes_of(const Targets& targets) {
    return targets.prefix_of.defined() ? targets.prefix_of.const_data_ptr<int64_t>() : nullptr;
}

bool has_fast_path(const at::Tensor& x, const Softcap& softcap) {
    return x.device().is_cpu() && std::abs(softcap.height()) <= cpu::SoftcapPass::max_height;
}

std::vector<double> weights_of(const Targets& targets) {
    if (!targets.weights.defined()) return {1};
    const at::Tensor weights = targets.weights.to(at::kDouble).contiguous();
    return {weights.const_data_ptr<double>(), weights.const_data_ptr<double>() + weights.numel()};
}

// dx and dw undefined: the loss only.
template <class T>
void fast(const at::Tensor& x, const HeadWeight& head, const Targets& targets, const Softcap& softcap,
          double grad_scale, const at::Tensor& loss, const at::Tensor& dx, const HeadWeight& dw) {
    const at::Tensor bias = head.bias.defined() ? head.bias.to(at::kFloat).contiguous() : head.bias;
    const cpu::HeadProblem<T> problem{x.const_data_ptr<T>(),
                                      head.w.const_data_ptr<T>(),
                                      bias.defined() ? bias.const_data_ptr<float>() : nullptr,
                                      targets.next.const_data_ptr<int64_t>(),
                                      weights_of(targets),
                                      targets.tail == Targets::Tail::keep_normaliser,
                                      prefixes_of(targets),
                                      targets.prefix_of.defined() ? targets.prefix_weight.item<double>() : 0,
                                      x.size(0),
                                      head.w.size(0),
                                      x.size(1),
                                      softcap,
                                      loss.data_ptr<float>()};
    if (!dw.w.defined()) {
        cpu::head_loss(problem, nullptr);
        return;
    }
    const bool fp32 = dw.w.scalar_type() == at::kFloat;
    const at::Tensor dbias = dw.bias.defined() ? at::zeros(dw.bias.sizes(), at::kFloat) : dw.bias;
    const cpu::HeadGradients<T> gradients{
        grad_scale, dx.data_ptr<T>(), fp32 ? dw.w.data_ptr<float>() : nullptr,
        fp32 ? nullptr : dw.w.data_ptr<at::BFloat16>(), dbias.defined() ? dbias.data_ptr<float>() : nullptr};
    cpu::head_loss(problem, &gradients);
    if (dbias.defined()) at::Tensor(dw.bias).add_(dbias);
}

void fast(const at::Tensor& x, const HeadWeight& head, const Targets& targets, const Softcap& softcap,
          double grad_scale, const at::Tensor& loss, const at::Tensor& dx, const HeadWeight& dw) {
    const at::Tensor& w = head.w;
    check(is_fp32_or_bf16(x) && is_fp32_or_bf16(w) && (!dw.w.defined() || is_fp32_or_bf16(dw.w)),
          "head_loss: a tensor is neither fp32 nor bf16");
    check(loss.scalar_type() == at::kFloat, "head_loss: loss_per_token is not fp32");
    Targets t = targets;
    t.next = t.next.contiguous();
    check_targets(t.next, prefixes_of(t), w.size(0));
    if (x.scalar_type() == at::kFloat && w.scalar_type() == at::kFloat) {
        fast<float>(x.contiguous(), {w.contiguous(), head.bias}, t, softcap, grad_scale, loss, dx, dw);
    } else if (x.scalar_type() == w.scalar_type() && x.size(1) % 2 == 0 && cpu::has_bf16_brgemm()) {
        fast<at::BFloat16>(x.contiguous(), {w.contiguous(), head.bias}, t, softcap, grad_scale, loss, dx, dw);
    } else {
        const at::Tensor dx_fp32 = dx.defined() ? at::empty(dx.sizes(), at::kFloat) : dx;
        fast<float>(x.to(at::kFloat).contiguous(), {w.to(at::kFloat).contiguous(), head.bias}, t, softcap,
                    grad_scale, loss, dx_fp32, dw);
        if (dx.defined()) at::Tensor(dx).copy_(dx_fp32);
    }
}

// Some tokens of a micro-batch, their targets and all after them; dx undefined: the loss only.
struct HeadPart {
    at::Tensor x, logits;
    Targets targets;
    at::Tensor loss, dx;
};

// The head in one dtype, that of x and w: the gradient of the logits takes their place.
class PlainHead {
  public:
    PlainHead(const cuda::Gpu& gpu, HeadWeight head) : gpu_(gpu), head_(std::move(head)) {}

    void pass(const HeadPart& part, const Softcap& cap, double grad_scale, const HeadWeight& dw) const {
        const at::Tensor& z = part.logits;
        gemm(part.x, head_.w.t(), z);
        if (head_.bias.defined()) at::Tensor(z).add_(head_.bias);
        cuda::softcap_loss(gpu_, z, part.targets, cap, grad_scale, part.loss,
                           part.dx.defined() ? z : at::Tensor());
        if (!part.dx.defined()) return;
        gemm(z, head_.w, part.dx);
        gemm(z.t(), part.x, dw.w, /*accumulate=*/true);
        if (dw.bias.defined()) at::Tensor(dw.bias).add_(z.sum(0, /*keepdim=*/false, at::kFloat));
    }

  private:
    const cuda::Gpu& gpu_;
    HeadWeight head_;
};

// In 8-bit floats. cuBLASLt multiplies those where the inner dimension is contiguous in both operands: hence
// the transposes. The products of the gradient add up in fp32, as train_gpt.py's do (use_fast_accum=False).
// There is no bias.
class Fp8Head {
  public:
    Fp8Head(const cuda::Gpu& gpu, const at::Tensor& w, const Fp8Scales& scales)
        : gpu_(gpu),
          scales_(scales),
          x_scale_(at::full({}, scales.x, w.options().dtype(at::kFloat))),
          w_scale_(at::full({}, scales.w, x_scale_.options())),
          grad_scale_(at::full({}, scales.grad, x_scale_.options())),
          w_(cuda::quantize(gpu, w, scales.w, at::kFloat8_e4m3fn)) {}

    void pass(const HeadPart& part, const Softcap& cap, double grad_scale, const HeadWeight& dw) const {
        const auto x = cuda::quantize(gpu_, part.x, scales_.x, at::kFloat8_e4m3fn);
        at::Tensor z = part.logits, dx = part.dx;
        at::_scaled_mm_out(z, x.whole, w_.whole.t(), x_scale_, w_scale_, {}, {}, at::kBFloat16,
                           /*use_fast_accum=*/true);
        const auto g =
            cuda::softcap_loss_fp8(gpu_, z, part.targets, cap, grad_scale, part.loss, scales_.grad);
        at::_scaled_mm_out(dx, g.whole, w_.transposed.t(), grad_scale_, w_scale_, {}, {}, at::kBFloat16,
                           /*use_fast_accum=*/false);
        at::Tensor(dw.w).add_(at::_scaled_mm(g.transposed, x.transposed.t(), grad_scale_, x_scale_, {}, {},
                                             at::kFloat, /*use_fast_accum=*/false));
    }

  private:
    const cuda::Gpu& gpu_;
    Fp8Scales scales_;
    at::Tensor x_scale_, w_scale_, grad_scale_;
    cuda::Quantized w_;
};

// The targets of token `begin` and of those after it.
Targets from(const Targets& targets, int64_t begin) {
    Targets later = targets;
    later.next = later.next.slice(0, begin);
    return later;
}

// Logits are rounded to x's dtype, as train_gpt.py's are.
void on_gpu(const auto& head, const at::Tensor& x, int64_t vocab, const Targets& targets,
            const Softcap& softcap, double grad_scale, const at::Tensor& loss, const at::Tensor& dx,
            const HeadWeight& dw) {
    const int64_t rows = std::min(gpu_head_rows, x.size(0));
    const at::Tensor buffer = at::empty({rows, vocab}, x.options());
    for (int64_t begin = 0; begin < x.size(0); begin += rows) {
        const int64_t count = std::min(rows, x.size(0) - begin);
        const auto part = [&](const at::Tensor& all) {
            return all.defined() ? all.narrow(0, begin, count) : all;
        };
        head.pass({part(x), buffer.narrow(0, 0, count), from(targets, begin), part(loss), part(dx)}, softcap,
                  grad_scale, dw);
    }
}

bool has_kernel(const at::Tensor& x, const at::Tensor& w, const Softcap& softcap) {
    return cuda::fused(x) && x.scalar_type() == w.scalar_type() &&
           std::abs(softcap.height()) <= cuda::most_softcap;
}

constexpr int64_t reference_chunk = 4096;

// The fp32 numbers that x / scale in an 8-bit dtype stands for.
at::Tensor quantized(const at::Tensor& x, double scale, at::ScalarType dtype) {
    const double largest = dtype == at::kFloat8_e4m3fn ? 448 : 57344;
    return x.to(at::kFloat).div(scale).clamp(-largest, largest).to(dtype).to(at::kFloat).mul(scale);
}

// A token's targets and their weights as [T, K], K one more than weights where there are prefixes; of targets
// that are not there, any token and 0.
struct TargetTable {
    at::Tensor tokens, weights;
    at::Tensor normaliser;  // [T, 1]
};

TargetTable table_of(const Targets& targets, at::ScalarType type) {
    const int64_t rows = targets.next.size(0), count = targets.count();
    const bool prefixes = targets.prefix_of.defined();
    const auto options = targets.next.options();
    const at::Tensor own =
        targets.weights.defined() ? targets.weights.to(type) : at::ones({1}, options.dtype(type));
    const at::Tensor tokens = at::zeros({rows, count + prefixes}, options),
                     weights = at::zeros({rows, count + prefixes}, options.dtype(type));
    for (int64_t k = 0; k < std::min(count, rows); ++k) {
        tokens.select(1, k).narrow(0, 0, rows - k).copy_(targets.next.narrow(0, k, rows - k));
        weights.select(1, k).narrow(0, 0, rows - k).copy_(own[k]);
    }
    at::Tensor normaliser = weights.sum(1, true);
    if (targets.tail == Targets::Tail::keep_normaliser) normaliser.copy_(own.sum());
    if (prefixes) {
        const at::Tensor prefix = targets.prefix_of.index_select(0, targets.next);
        tokens.select(1, count).copy_(prefix.clamp_min(0));
        weights.select(1, count).copy_(prefix.ge(0) * targets.prefix_weight.to(type));
        normaliser.add_(weights.narrow(1, count, 1));
    }
    return {tokens, weights, normaliser};
}

// Softcap::share of each logit, in place.
at::Tensor shares_of(at::Tensor z, const Softcap& cap) {
    if (cap.form == Softcap::Form::sigmoid) return z.add_(cap.b).div_(cap.c).sigmoid_();
    return z.mul_((z.square() + cap.a * cap.a).rsqrt_()).add_(1).mul_(0.5);
}

// Softcap::bend of each share.
at::Tensor bends_of(const at::Tensor& s, const Softcap& cap) {
    const at::Tensor product = s * (1 - s);
    return cap.form == Softcap::Form::sigmoid ? product : product.mul(4).pow_(1.5);
}

// One chunk of the reference: the loss, and with `sum` (in the computing dtype) the gradients.
void reference_chunk_pass(const at::Tensor& x, const HeadWeight& head, const TargetTable& targets,
                          const Softcap& cap, double grad_scale, at::Tensor loss, at::Tensor dx,
                          const HeadWeight& sum, const std::optional<Fp8Scales>& fp8) {
    at::Tensor z = x.mm(head.w.t());
    if (head.bias.defined()) z.add_(head.bias);
    if (fp8) z = z.to(at::kBFloat16).to(x.scalar_type());
    const at::Tensor s = shares_of(z, cap);
    at::Tensor p = (s * cap.height()).log_softmax(1);
    loss.copy_(-(p.gather(1, targets.tokens) * targets.weights).sum(1));
    if (!sum.w.defined()) return;
    p.exp_().mul_(targets.normaliser).scatter_add_(1, targets.tokens, -targets.weights);
    at::Tensor dz = p.mul_(bends_of(s, cap)).mul_(grad_scale * cap.slope());
    if (fp8) dz = quantized(dz.to(at::kBFloat16), fp8->grad, at::kFloat8_e5m2);
    dx.copy_(dz.mm(head.w));
    at::Tensor(sum.w).addmm_(dz.t(), x);
    if (sum.bias.defined()) at::Tensor(sum.bias).add_(dz.sum(0));
}

// `dtype` where the tensor is defined.
at::Tensor in(at::ScalarType dtype, const at::Tensor& x) {
    return x.defined() ? x.to(dtype) : x;
}

void plain_head_loss(const at::Tensor& x, const HeadWeight& head, const Targets& targets,
                     const Softcap& softcap, double grad_scale, const at::Tensor& loss, const at::Tensor& dx,
                     const HeadWeight& dw, const std::optional<Fp8Scales>& fp8 = {}) {
    const at::ScalarType type = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const HeadWeight weights{fp8 ? quantized(head.w, fp8->w, at::kFloat8_e4m3fn) : head.w.to(type),
                             in(type, head.bias)};
    const at::Tensor inputs = fp8 ? quantized(x, fp8->x, at::kFloat8_e4m3fn) : x.to(type);
    const TargetTable table = table_of(targets, type);
    const HeadWeight sum{in(type, dw.w), in(type, dw.bias)};  // dw itself where it has that dtype
    for (int64_t begin = 0; begin < x.size(0); begin += reference_chunk) {
        const auto part = [&](const at::Tensor& tensor) {
            return tensor.defined() ? tensor.slice(0, begin, begin + reference_chunk) : tensor;
        };
        reference_chunk_pass(part(inputs), weights,
                             {part(table.tokens), part(table.weights), part(table.normaliser)}, softcap,
                             grad_scale, part(loss), part(dx), sum, fp8);
    }
    for (const auto& [to, from] : {std::pair{dw.w, sum.w}, {dw.bias, sum.bias}})
        if (to.defined() && !from.is_same(to)) at::Tensor(to).copy_(from);
}

}  // namespace

bool has_fp8(at::Device device) {
    return device.is_cuda() && cuda::has_fp8(cuda::gpu_of(at::empty({0}, device)));
}

void head_loss(const at::Tensor& x, const HeadWeight& w, const Targets& targets, const Softcap& softcap,
               const at::Tensor& loss_per_token) {
    check_inputs(x, w, targets, loss_per_token);
    if (x.is_meta()) return;
    if (has_fast_path(x, softcap)) {
        fast(x, w, targets, softcap, 0, loss_per_token, {}, HeadWeight({}));
    } else if (has_kernel(x, w.w, softcap)) {
        const cuda::Gpu gpu = cuda::gpu_of(x);
        on_gpu(PlainHead(gpu, w), x, w.w.size(0), targets, softcap, 0, loss_per_token, {}, HeadWeight({}));
    } else {
        plain_head_loss(x, w, targets, softcap, 0, loss_per_token, {}, HeadWeight({}));
    }
}

void head_loss_backward(const at::Tensor& x, const HeadWeight& w, const Targets& targets,
                        const Softcap& softcap, double grad_scale, const at::Tensor& loss_per_token,
                        const at::Tensor& dx, const HeadWeight& dw, const std::optional<Fp8Scales>& fp8) {
    check_inputs(x, w, targets, loss_per_token);
    check_gradients(x, w, dx, dw);
    if (x.is_meta()) return;
    if (has_fast_path(x, softcap)) {
        fast(x, w, targets, softcap, grad_scale, loss_per_token, dx, dw);
    } else if (has_kernel(x, w.w, softcap)) {
        const cuda::Gpu gpu = cuda::gpu_of(x);
        const auto run = [&](const auto& head) {
            on_gpu(head, x, w.w.size(0), targets, softcap, grad_scale, loss_per_token, dx, dw);
        };
        if (fp8) check(!w.bias.defined(), "head_loss: a head in 8-bit floats has no bias");
        if (fp8 && x.scalar_type() == at::kBFloat16 && cuda::has_fp8(gpu))
            run(Fp8Head(gpu, w.w, *fp8));
        else
            run(PlainHead(gpu, w));
    } else {
        plain_head_loss(x, w, targets, softcap, grad_scale, loss_per_token, dx, dw);
    }
}

void head_loss_reference(const at::Tensor& x, const HeadWeight& w, const Targets& targets,
                         const Softcap& softcap, const at::Tensor& loss_per_token) {
    check_inputs(x, w, targets, loss_per_token);
    plain_head_loss(x, w, targets, softcap, 0, loss_per_token, {}, HeadWeight({}));
}

void head_loss_backward_reference(const at::Tensor& x, const HeadWeight& w, const Targets& targets,
                                  const Softcap& softcap, double grad_scale, const at::Tensor& loss_per_token,
                                  const at::Tensor& dx, const HeadWeight& dw,
                                  const std::optional<Fp8Scales>& fp8) {
    check_inputs(x, w, targets, loss_per_token);
    check_gradients(x, w, dx, dw);
    plain_head_loss(x, w, targets, softcap, grad_scale, loss_per_token, dx, dw, fp8);
}

at::Tensor capped(const at::Tensor& z, const Softcap& cap) {
    const at::Tensor y = shares_of(z.clone(), cap).mul_(cap.height());
    return cap.form == Softcap::Form::sigmoid ? y : y.sub_(cap.a);
}

double Softcap::share(double z) const {
    if (form == Form::sigmoid) return 1 / (1 + std::exp(-(z + b) / c));
    return (1 + z / std::hypot(z, a)) / 2;
}

double Softcap::bend(double s) const {
    const double product = s * (1 - s);
    return form == Form::sigmoid ? product : std::pow(4 * product, 1.5);
}

}  // namespace speedrun::ops
