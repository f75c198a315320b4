#include "ops/fp8.h"

#include <ATen/ATen.h>

#include <limits>

#include "ops/cpu/convert.h"
#include "ops/cpu/fp8.h"
#include "ops/cpu/rows.h"
#include "ops/cuda/addresses.h"
#include "ops/gemm.h"
#include "ops/head_loss.h"
#include "ops/relu2.h"
#include "ops/wide.h"
#include "util/error.h"

namespace speedrun::ops {

void reference::fp8_quantize(const at::Tensor& x, const at::Tensor& scale, Fp8Order order,
                             const at::Tensor& to) {
    const at::Tensor in = wide(x);
    at::Tensor scaled = order == Fp8Order::times          ? in * scale
                        : order == Fp8Order::over_inverse ? in * scale.reciprocal()
                                                          : in / scale;
    if (order == Fp8Order::divided_in_dtype) scaled = scaled.to(x.scalar_type()).to(in.scalar_type());
    const at::Tensor codes = scaled.clamp(-fp8_largest, fp8_largest).to(at::kFloat8_e4m3fn);
    to.copy_(to.scalar_type() == at::kFloat8_e4m3fn ? codes : codes.to(at::kFloat));
}

namespace {

template <class T>
void quantize_row(const T* x, float scale, Fp8Order order, T* to, int64_t d) {
    if (order == Fp8Order::over_inverse) return quantize_row(x, 1 / scale, Fp8Order::times, to, d);
    if (order == Fp8Order::times) {
#pragma omp simd
        for (int64_t i = 0; i < d; ++i) cpu::store(to[i], cpu::nearest_e4m3(cpu::load(x[i]) * scale));
    } else if (order == Fp8Order::divided) {
#pragma omp simd
        for (int64_t i = 0; i < d; ++i) cpu::store(to[i], cpu::nearest_e4m3(cpu::load(x[i]) / scale));
    } else {
#pragma omp simd
        for (int64_t i = 0; i < d; ++i) {
            T quotient;
            cpu::store(quotient, cpu::load(x[i]) / scale);
            cpu::store(to[i], cpu::nearest_e4m3(cpu::load(quotient)));
        }
    }
}

void check_scale(const at::Tensor& scale, const at::Tensor& x) {
    check(scale.numel() == 1 && scale.scalar_type() == at::kFloat && scale.device() == x.device(),
          "fp8: a scale is not one fp32 number on its matrix's device");
}

bool has_bytes(const at::Tensor& codes) {
    return codes.scalar_type() == at::kFloat8_e4m3fn;
}

bool stored_in_bytes(const at::Tensor& x) {
    return fp8_storage(x.device(), x.scalar_type()) == at::kFloat8_e4m3fn;
}

at::Tensor empty_codes(const at::Tensor& x) {
    return at::empty(x.sizes(), x.options().dtype(fp8_storage(x.device(), x.scalar_type())));
}
at::Tensor empty_maxima(const at::Tensor& x) {
    return at::empty({cuda::raw::kMostMaxima}, x.options().dtype(at::kFloat));
}

}  // namespace

at::ScalarType fp8_storage(at::Device device, at::ScalarType own) {
    return own == at::kBFloat16 && has_fp8(device) ? at::kFloat8_e4m3fn : own;
}

void fp8_quantize(const at::Tensor& x, const at::Tensor& scale, Fp8Order order, const at::Tensor& to) {
    check(x.dim() == 2 && to.sizes() == x.sizes(), "fp8_quantize: x is no matrix, or codes of another shape");
    check_scale(scale, x);
    if (x.is_meta()) return;
    if (cuda::fused(x) && has_bytes(to)) return cuda::fp8_quantize(cuda::gpu_of(x), x, scale, order, to, {});
    if (!cpu::fused(x) || to.scalar_type() != x.scalar_type())
        return reference::fp8_quantize(x, scale, order, to);
    const int64_t d = cpu::row_length(x);
    const float number = *scale.const_data_ptr<float>();
    cpu::with_dtype(x.scalar_type(), [&]<class T>(T) {
        const auto from = cpu::rows<const T>(x, x.sizes(), "fp8_quantize: x");
        const auto codes = cpu::rows<T>(to, x.sizes(), "fp8_quantize: codes");
        cpu::for_each_row(x.size(0), d,
                          [&](int64_t t) { quantize_row(from[t], number, order, codes[t], d); });
    });
}

at::Tensor fp8_amax(const at::Tensor& x) {
    return at::linalg_vector_norm(x, std::numeric_limits<double>::infinity(), {}, /*keepdim=*/false,
                                  at::kFloat)
        .view({1});
}

void fp8_exact_scale(const at::Tensor& amax, at::ScalarType dtype, const at::Tensor& scale) {
    scale.copy_(amax.to(dtype).clamp_min(fp8_least_amax).div_(fp8_largest));
}

void fp8_delayed_scale(const at::Tensor& amax, double headroom, const at::Tensor& scale) {
    const at::Tensor next = amax.clamp_min(fp8_least_amax).mul_(headroom / fp8_largest);
    scale.copy_(at::where(amax.isfinite(), next, scale));
}

void fp8_product(const Fp8Matrix& a, const Fp8Matrix& b, const at::Tensor& c) {
    check(a.codes.scalar_type() == b.codes.scalar_type(), "fp8_product: codes are stored in two ways");
    check_scale(a.scale, a.codes);
    check_scale(b.scale, b.codes);
    if (c.is_meta()) return;
    at::Tensor out = c;
    if (has_bytes(a.codes)) {
        at::_scaled_mm_out(out, a.codes, b.codes.t(), a.scale, b.scale, {}, {}, at::kBFloat16,
                           /*use_fast_accum=*/true);
        return;
    }
    const bool direct = c.scalar_type() == at::kFloat;
    at::Tensor sums = direct ? c : at::empty(c.sizes(), c.options().dtype(at::kFloat));
    gemm(a.codes, b.codes.t(), sums);
    sums.mul_(a.scale * b.scale);
    if (!direct) out.copy_(sums);
}

void fp8_product_now(const at::Tensor& x, const Fp8Matrix& w, const at::Tensor& y) {
    if (x.is_meta()) return;
    const at::Tensor codes = empty_codes(x);
    if (stored_in_bytes(x)) {
        const cuda::Gpu gpu = cuda::gpu_of(x);
        const at::Tensor maxima = empty_maxima(x), scales = at::empty({3}, maxima.options());
        cuda::fp8_maxima(gpu, x, maxima);
        cuda::fp8_now_scales(gpu, x, maxima, w.scale, scales);
        cuda::fp8_quantize(gpu, x, scales.narrow(0, 0, 1), Fp8Order::times, codes, {});
        return fp8_product({codes, scales.narrow(0, 1, 1)}, {w.codes, scales.narrow(0, 2, 1)}, y);
    }
    const at::Tensor amax = fp8_amax(x).clamp_min_(fp8_least_amax);
    // Python's 448.0 / amax is this.
    fp8_quantize(x, amax.reciprocal().mul_(fp8_largest), Fp8Order::times, codes);
    const at::Tensor scale = (w.scale * amax).div_(fp8_largest);
    fp8_product({codes, scale}, {w.codes, at::ones_like(scale)}, y);
}

void fp8_relu2_product(const at::Tensor& pre, const at::Tensor& post, const at::Tensor& x_scale,
                       double headroom, const Fp8Matrix& w, const at::Tensor& y) {
    if (pre.is_meta()) return;
    const at::Tensor codes = empty_codes(pre);
    if (stored_in_bytes(pre)) {
        const cuda::Gpu gpu = cuda::gpu_of(pre);
        const at::Tensor maxima = empty_maxima(pre);
        cuda::fp8_relu2_quantize(gpu, pre, x_scale, post, codes, maxima);
        fp8_product({codes, x_scale}, w, y);
        return cuda::fp8_next_scales(gpu, pre, maxima, headroom, {}, x_scale, {});
    }
    relu2(pre, post);
    fp8_quantize(post, x_scale, Fp8Order::over_inverse, codes);
    fp8_product({codes, x_scale}, w, y);
    fp8_delayed_scale(fp8_amax(post), headroom, x_scale);
}

void fp8_quantize_weight(const at::Tensor& weight, Fp8WeightScale which, Fp8Order order, double headroom,
                         const at::Tensor& scale, const at::Tensor& next_scale, const at::Tensor& to) {
    if (weight.is_meta()) return;
    const bool exact = which == Fp8WeightScale::exact, delayed = which == Fp8WeightScale::delayed;
    if (has_bytes(to) && cuda::fused(weight)) {
        const cuda::Gpu gpu = cuda::gpu_of(weight);
        const at::Tensor maxima = empty_maxima(weight);
        if (exact) {
            cuda::fp8_maxima(gpu, weight, maxima);
            cuda::fp8_next_scales(gpu, weight, maxima, headroom, scale, next_scale, {});
            return cuda::fp8_quantize(gpu, weight, scale, order, to, {});
        }
        cuda::fp8_quantize(gpu, weight, delayed ? next_scale : scale, order, to, maxima);
        return cuda::fp8_next_scales(gpu, weight, maxima, headroom, {}, next_scale,
                                     delayed ? scale : at::Tensor());
    }
    const at::Tensor amax = fp8_amax(weight);
    if (exact) fp8_exact_scale(amax, weight.scalar_type(), scale);
    if (delayed) at::Tensor(scale).copy_(next_scale);
    fp8_quantize(weight, scale, order, to);
    fp8_delayed_scale(amax, headroom, next_scale);
}

void fp8_transpose(const at::Tensor& from, const at::Tensor& to) {
    check(
        has_bytes(from) && has_bytes(to) && from.is_contiguous() && to.is_contiguous() && from.dim() == 2 &&
            to.sizes() == at::IntArrayRef({from.size(1), from.size(0)}) && from.size(0) % 16 == 0 &&
            from.size(1) % 16 == 0,
        "fp8_transpose: not two contiguous matrices of bytes, each the other's shape turned, of multiples of "
        "16");
    const cuda::Gpu gpu = cuda::gpu_of(from);
    gpu.kernels.transpose_bytes(static_cast<const uint8_t*>(from.const_data_ptr()),
                                static_cast<uint8_t*>(to.data_ptr()), cuda::shape_of(from), gpu.stream);
}

namespace cuda {
namespace {

uint8_t* bytes_like(const at::Tensor& codes, const at::Tensor& x) {
    check(codes.sizes() == x.sizes() && has_bytes(codes) && codes.is_contiguous(),
          "fp8: codes are not contiguous bytes, one a number");
    return static_cast<uint8_t*>(codes.data_ptr());
}

float* number(const at::Tensor& scale) {
    return floats(scale, 1, "fp8: a scale");
}

float* room_for(const at::Tensor& maxima) {
    return floats(maxima, raw::kMostMaxima, "fp8: maxima");
}

raw::QuantizeOrder raw_order(Fp8Order order) {
    switch (order) {
        case Fp8Order::times:
            return raw::QuantizeOrder::times;
        case Fp8Order::over_inverse:
            return raw::QuantizeOrder::over_inverse;
        case Fp8Order::divided:
            return raw::QuantizeOrder::divided;
        default:
            return raw::QuantizeOrder::divided_in_dtype;
    }
}

}  // namespace

void fp8_quantize(const Gpu& gpu, const at::Tensor& x, const at::Tensor& scale, Fp8Order order,
                  const at::Tensor& to, const at::Tensor& maxima) {
    gpu.kernels.quantize_scaled(rows(x, x.sizes(), "fp8_quantize: x"), number(scale), raw_order(order),
                                bytes_like(to, x), room_for(maxima), shape_of(x), gpu.stream);
}

void fp8_relu2_quantize(const Gpu& gpu, const at::Tensor& x, const at::Tensor& scale, const at::Tensor& y,
                        const at::Tensor& to, const at::Tensor& maxima) {
    check(maxima.defined() && y.scalar_type() == x.scalar_type(),
          "fp8_relu2_quantize: no room, or two dtypes");
    gpu.kernels.relu2_quantized(rows(x, x.sizes(), "fp8_relu2_quantize: x"),
                                rows(y, x.sizes(), "fp8_relu2_quantize: y"), number(scale), bytes_like(to, x),
                                room_for(maxima), shape_of(x), gpu.stream);
}

void fp8_maxima(const Gpu& gpu, const at::Tensor& x, const at::Tensor& maxima) {
    gpu.kernels.fp8_maxima(rows(x, x.sizes(), "fp8_maxima: x"), room_for(maxima), shape_of(x), gpu.stream);
}

void fp8_now_scales(const Gpu& gpu, const at::Tensor& x, const at::Tensor& maxima, const at::Tensor& w_scale,
                    const at::Tensor& scales) {
    raw::Fp8Scale scale;
    scale.maxima = room_for(maxima);
    scale.weight_scale = number(w_scale);
    scale.now = floats(scales, 3, "fp8_now_scales: scales");
    gpu.kernels.fp8_scale(scale, shape_of(x), gpu.stream);
}

void fp8_next_scales(const Gpu& gpu, const at::Tensor& x, const at::Tensor& maxima, double headroom,
                     const at::Tensor& exact, const at::Tensor& delayed, const at::Tensor& replaced) {
    raw::Fp8Scale scale;
    scale.maxima = room_for(maxima);
    scale.exact = number(exact);
    scale.exact_type = scalar(x, "fp8_next_scales: x");
    scale.delayed = number(delayed);
    scale.headroom = static_cast<float>(headroom / fp8_largest);
    scale.replaced = number(replaced);
    gpu.kernels.fp8_scale(scale, shape_of(x), gpu.stream);
}

}  // namespace cuda

}  // namespace speedrun::ops
