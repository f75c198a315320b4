#include "ops/cuda/head.h"

#include <ATen/ATen.h>

#include <string>
#include <utility>

#include "ops/cuda/addresses.h"
#include "util/error.h"

namespace speedrun::ops::cuda {
namespace {

raw::SoftcapLoss softcap_loss_of(const at::Tensor& logits, const Targets& targets, const Softcap& softcap,
                                 double grad_scale, const at::Tensor& loss_per_token) {
    const at::Tensor& next = targets.next;
    check(next.scalar_type() == at::kLong && next.numel() >= logits.size(0) && next.is_contiguous(),
          "softcap_loss: targets are not int64, one a token");
    raw::SoftcapLoss loss;
    loss.logits = rows(logits, logits.sizes(), "softcap_loss: logits");
    loss.targets = next.const_data_ptr<int64_t>();
    loss.targets_left = next.numel();
    loss.weights = floats(targets.weights, targets.count(), "softcap_loss: weights");
    loss.weight_count = static_cast<int>(targets.count());
    loss.keep_normaliser = targets.tail == Targets::Tail::keep_normaliser;
    if (targets.prefix_of.defined()) {
        check(targets.prefix_of.scalar_type() == at::kLong && targets.prefix_of.is_contiguous() &&
                  targets.prefix_of.numel() == logits.size(1),
              "softcap_loss: prefixes are not int64, one a token of the vocabulary");
        loss.prefix_of = targets.prefix_of.const_data_ptr<int64_t>();
        loss.prefix_weight = floats(targets.prefix_weight, 1, "softcap_loss: prefix_weight");
    }
    loss.a = static_cast<float>(softcap.a);
    loss.b = static_cast<float>(softcap.b);
    loss.c = static_cast<float>(softcap.c);
    loss.rsqrt = softcap.form == Softcap::Form::rsqrt;
    loss.height = static_cast<float>(softcap.height());
    loss.slope = static_cast<float>(softcap.slope());
    loss.loss = floats(loss_per_token, logits.size(0), "softcap_loss: loss_per_token");
    loss.grad_scale = static_cast<float>(grad_scale);
    return loss;
}

uint8_t* bytes_of(const at::Tensor& x) {
    return static_cast<uint8_t*>(x.data_ptr());
}

Quantized with_transpose(const Gpu& gpu, at::Tensor whole) {
    check(whole.size(0) % 16 == 0 && whole.size(1) % 16 == 0,
          "8-bit floats [" + std::to_string(whole.size(0)) + ", " + std::to_string(whole.size(1)) +
              "]: cuBLASLt multiplies multiples of 16");
    const at::Tensor transposed = at::empty({whole.size(1), whole.size(0)}, whole.options());
    gpu.kernels.transpose_bytes(bytes_of(whole), bytes_of(transposed), shape_of(whole), gpu.stream);
    return {std::move(whole), transposed};
}

}  // namespace

void softcap_loss(const Gpu& gpu, const at::Tensor& logits, const Targets& targets, const Softcap& softcap,
                  double grad_scale, const at::Tensor& loss_per_token, const at::Tensor& gradient) {
    raw::SoftcapLoss loss = softcap_loss_of(logits, targets, softcap, grad_scale, loss_per_token);
    loss.gradient = rows(gradient, logits.sizes(), "softcap_loss: gradient");
    gpu.kernels.softcap_loss(loss, shape_of(logits), gpu.stream);
}

Quantized softcap_loss_fp8(const Gpu& gpu, const at::Tensor& logits, const Targets& targets,
                           const Softcap& softcap, double grad_scale, const at::Tensor& loss_per_token,
                           double fp8_scale) {
    const at::Tensor whole = at::empty(logits.sizes(), logits.options().dtype(at::kFloat8_e5m2));
    raw::SoftcapLoss loss = softcap_loss_of(logits, targets, softcap, grad_scale, loss_per_token);
    loss.gradient_fp8 = bytes_of(whole);
    loss.fp8_scale = static_cast<float>(fp8_scale);
    gpu.kernels.softcap_loss(loss, shape_of(logits), gpu.stream);
    return with_transpose(gpu, whole);
}

Quantized quantize(const Gpu& gpu, const at::Tensor& x, double scale, at::ScalarType dtype) {
    check(x.dim() == 2 && (dtype == at::kFloat8_e4m3fn || dtype == at::kFloat8_e5m2),
          "quantize: x is [T, d], dtype one of 8 bits");
    const at::Tensor whole = at::empty(x.sizes(), x.options().dtype(dtype));
    gpu.kernels.quantize(rows(x, x.sizes(), "quantize: x"), static_cast<float>(scale),
                         dtype == at::kFloat8_e4m3fn ? raw::Fp8::e4m3 : raw::Fp8::e5m2, bytes_of(whole),
                         shape_of(x), gpu.stream);
    return with_transpose(gpu, whole);
}

bool has_fp8(const Gpu& gpu) {
    return gpu.kernels.compute_capability() >= 89;
}

}  // namespace speedrun::ops::cuda
