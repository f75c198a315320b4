#include "ops/cuda/fused.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <string>

#include "ops/cuda/addresses.h"
#include "util/error.h"

namespace speedrun::ops::cuda {
namespace {

const int32_t* token_ids(const at::Tensor& ids, int64_t tokens) {
    check(ids.scalar_type() == at::kInt && ids.numel() == tokens && ids.is_contiguous(),
          "embedding: ids are not int32 [T]");
    return ids.const_data_ptr<int32_t>();
}

at::Tensor partials(const at::Tensor& like, int64_t width) {
    return at::empty({raw::kPartialSets * width}, like.options().dtype(at::kFloat));
}

raw::Mix mix_of(std::span<const at::Tensor> sources, const at::Tensor& coefficients, const at::Tensor& y) {
    check(!sources.empty() && sources.size() <= static_cast<size_t>(raw::kMostSources),
          "mix: takes 1 to 8 sources");
    raw::Mix mix;
    mix.count = static_cast<int>(sources.size());
    for (size_t j = 0; j < sources.size(); ++j) mix.sources[j] = rows(sources[j], y.sizes(), "mix: source");
    for (int j = 0; j < mix.count; ++j)
        check(mix.sources[j].type == scalar(y, "mix: y"), "mix: sources of several dtypes");
    mix.coefficients = floats(coefficients, mix.count, "mix: coefficients");
    mix.y = rows(y, y.sizes(), "mix: y");
    return mix;
}

raw::Rotary rotary_of(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
    check(x.dim() == 3 && x.size(2) % 2 == 0 && cos.dim() == 2 && cos.size(0) >= x.size(0) &&
              cos.size(1) == x.size(2) / 2,
          "rotary: x is [T, H, D], D even, cos [T' >= T, D/2]");
    check(cos.scalar_type() == sin.scalar_type(), "rotary: cos and sin of one dtype");
    return {rows(cos, cos.sizes(), "rotary: cos"), rows(sin, cos.sizes(), "rotary: sin"), x.size(1)};
}

raw::HeadGate gate_of(const at::Tensor& y, const at::Tensor& x, const at::Tensor& w) {
    check(y.dim() == 3 && x.dim() == 2 && w.dim() == 2 && x.size(0) == y.size(0) && w.size(0) == y.size(1) &&
              w.size(1) <= x.size(1),
          "head_gate: y is [T, H, D], x [T, d], w [H, n], n <= d");
    check(x.scalar_type() == y.scalar_type(), "head_gate: x and y of one dtype");
    return {rows(x, x.sizes(), "head_gate: x"), flat(w, w.numel(), "head_gate: w"), w.size(0), w.size(1)};
}

raw::Smear smear_of(const at::Tensor& e, const at::Tensor& w, const at::Tensor& lambda) {
    check(e.dim() == 2 && w.numel() <= e.size(1), "smear: e is [T, d], w [n], n <= d");
    return {flat(w, w.numel(), "smear: w"), w.numel(), floats(lambda, 1, "smear: lambda")};
}

}  // namespace

void Fused::mix(std::span<const at::Tensor> sources, const at::Tensor& coefficients,
                const at::Tensor& y) const {
    kernels_.mix(mix_of(sources, coefficients, y), shape_of(y), stream_);
}

void Fused::mix_norm(std::span<const at::Tensor> sources, const at::Tensor& coefficients, double eps,
                     const at::Tensor& y, const at::Tensor& normed, const at::Tensor& rstd) const {
    raw::Mix mix = mix_of(sources, coefficients, y);
    mix.normed = rows(normed, y.sizes(), "mix_norm: normed");
    mix.rstd = floats(rstd, y.size(0), "mix_norm: rstd");
    mix.eps = static_cast<float>(eps);
    kernels_.mix(mix, shape_of(y), stream_);
}

void Fused::mix_backward(const at::Tensor& dy, std::span<const at::Tensor> sources,
                         const at::Tensor& coefficients, std::span<const at::Tensor> dsources,
                         std::span<const uint8_t> accumulate, const at::Tensor& dcoefficients,
                         std::span<const uint8_t> wants_dc) const {
    const size_t n = sources.size();
    check(n >= 1 && n <= static_cast<size_t>(raw::kMostSources) && dsources.size() == n &&
              accumulate.size() == n && wants_dc.size() == n,
          "mix_backward: 1 to 8 sources, and one gradient, accumulate and wants_dc for each");
    raw::MixBackward mix;
    mix.count = static_cast<int>(n);
    mix.dy = rows(dy, dy.sizes(), "mix_backward: dy");
    for (size_t j = 0; j < n; ++j) {
        if (wants_dc[j]) mix.sources[j] = rows(sources[j], dy.sizes(), "mix_backward: source");
        mix.dsources[j] = rows(dsources[j], dy.sizes(), "mix_backward: dsource");
        mix.accumulate[j] = accumulate[j] != 0;
    }
    mix.coefficients = floats(coefficients, mix.count, "mix_backward: coefficients");
    mix.dcoefficients = floats(dcoefficients, mix.count, "mix_backward: dcoefficients");
    const at::Tensor sums = partials(dy, mix.count);
    mix.partials = sums.data_ptr<float>();
    kernels_.mix_backward(mix, shape_of(dy), stream_);
}

void Fused::rms_norm(const at::Tensor& x, double eps, const at::Tensor& y, const at::Tensor& rstd) const {
    kernels_.rms_norm(rows(x, x.sizes(), "rms_norm: x"), static_cast<float>(eps),
                      rows(y, x.sizes(), "rms_norm: y"), floats(rstd, x.size(0), "rms_norm: rstd"),
                      shape_of(x), stream_);
}

void Fused::rms_norm_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& rstd,
                              const at::Tensor& dx, bool accumulate) const {
    kernels_.rms_norm_backward(
        rows(dy, x.sizes(), "rms_norm_backward: dy"), rows(x, x.sizes(), "rms_norm_backward: x"),
        floats(rstd, x.size(0), "rms_norm_backward: rstd"), rows(dx, x.sizes(), "rms_norm_backward: dx"),
        accumulate, shape_of(x), stream_);
}

void Fused::relu2(const at::Tensor& x, const at::Tensor& y) const {
    kernels_.relu2(rows(x, x.sizes(), "relu2: x"), rows(y, x.sizes(), "relu2: y"), shape_of(x), stream_);
}

void Fused::relu2_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& dx) const {
    kernels_.relu2_backward(rows(dy, x.sizes(), "relu2_backward: dy"),
                            rows(x, x.sizes(), "relu2_backward: x"),
                            rows(dx, x.sizes(), "relu2_backward: dx"), shape_of(x), stream_);
}

void Fused::qk_norm_rotary(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, double eps,
                           const at::Tensor& y, const at::Tensor& rstd) const {
    const raw::Rotary rotary = rotary_of(x, cos, sin);
    kernels_.qk_norm_rotary(rows(x, x.sizes(), "qk_norm_rotary: x"), rotary, static_cast<float>(eps),
                            rows(y, x.sizes(), "qk_norm_rotary: y"),
                            floats(rstd, x.size(0) * x.size(1), "qk_norm_rotary: rstd"), shape_of(x),
                            stream_);
}

void Fused::qk_norm_rotary_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& cos,
                                    const at::Tensor& sin, const at::Tensor& rstd,
                                    const at::Tensor& dx) const {
    const raw::Rotary rotary = rotary_of(x, cos, sin);
    kernels_.qk_norm_rotary_backward(
        rows(dy, x.sizes(), "qk_norm_rotary_backward: dy"), rows(x, x.sizes(), "qk_norm_rotary_backward: x"),
        rotary, floats(rstd, x.size(0) * x.size(1), "qk_norm_rotary_backward: rstd"),
        rows(dx, x.sizes(), "qk_norm_rotary_backward: dx"), shape_of(x), stream_);
}

void Fused::head_gate(const at::Tensor& y, const at::Tensor& x, const at::Tensor& w, const at::Tensor& out,
                      const at::Tensor& gate) const {
    kernels_.head_gate(rows(y, y.sizes(), "head_gate: y"), gate_of(y, x, w),
                       rows(out, y.sizes(), "head_gate: out"),
                       floats(gate, y.size(0) * y.size(1), "head_gate: gate"), shape_of(y), stream_);
}

void Fused::head_gate_backward(const at::Tensor& dout, const at::Tensor& y, const at::Tensor& x,
                               const at::Tensor& w, const at::Tensor& gate, const at::Tensor& dy,
                               const at::Tensor& dx, const at::Tensor& dw) const {
    const raw::HeadGate numbers = gate_of(y, x, w);
    const at::Tensor sums = partials(y, w.numel());
    kernels_.head_gate_backward(
        rows(dout, y.sizes(), "head_gate_backward: dout"), rows(y, y.sizes(), "head_gate_backward: y"),
        numbers, floats(gate, y.size(0) * y.size(1), "head_gate_backward: gate"),
        rows(dy, y.sizes(), "head_gate_backward: dy"),
        rows(dx.narrow(1, 0, w.size(1)), {x.size(0), w.size(1)}, "head_gate_backward: dx"),
        flat(dw, w.numel(), "head_gate_backward: dw"), sums.data_ptr<float>(), shape_of(y), stream_);
}

void Fused::smear(const at::Tensor& e, const at::Tensor& w, const at::Tensor& lambda, const at::Tensor& out,
                  const at::Tensor& gate) const {
    kernels_.smear(rows(e, e.sizes(), "smear: e"), smear_of(e, w, lambda), rows(out, e.sizes(), "smear: out"),
                   floats(gate, e.size(0), "smear: gate"), shape_of(e), stream_);
}

void Fused::smear_backward(const at::Tensor& dout, const at::Tensor& e, const at::Tensor& w,
                           const at::Tensor& lambda, const at::Tensor& gate, const at::Tensor& de,
                           const at::Tensor& dw, const at::Tensor& dlambda) const {
    const raw::Smear numbers = smear_of(e, w, lambda);
    const at::Tensor sums = partials(e, w.numel() + 1);
    kernels_.smear_backward(
        rows(dout, e.sizes(), "smear_backward: dout"), rows(e, e.sizes(), "smear_backward: e"), numbers,
        floats(gate, e.size(0), "smear_backward: gate"), rows(de, e.sizes(), "smear_backward: de"),
        flat(dw, w.numel(), "smear_backward: dw"), floats(dlambda, 1, "smear_backward: dlambda"),
        sums.data_ptr<float>(), shape_of(e), stream_);
}

void Fused::embedding(const at::Tensor& table, const at::Tensor& ids, const at::Tensor& out) const {
    check(table.dim() == 2 && out.dim() == 2 && table.size(1) == out.size(1),
          "embedding: table is [V, d], out [T, d]");
    kernels_.embedding(rows(table, table.sizes(), "embedding: table"), token_ids(ids, out.size(0)),
                       rows(out, out.sizes(), "embedding: out"), shape_of(out), stream_);
}

void Fused::embedding_backward(const at::Tensor& dout, const at::Tensor& ids,
                               const at::Tensor& dtable) const {
    check(dtable.dim() == 2 && dout.dim() == 2 && dtable.size(1) == dout.size(1),
          "embedding_backward: dtable is [V, d], dout [T, d]");
    const auto [sorted, order] = at::sort(ids, /*stable=*/true, 0, /*descending=*/false);
    const int64_t chunks = (dout.size(0) + raw::kEmbeddingChunk - 1) / raw::kEmbeddingChunk;
    const at::Tensor sums = at::empty({chunks, 2, dout.size(1)}, dout.options().dtype(at::kFloat));
    kernels_.embedding_backward(rows(dout, dout.sizes(), "embedding_backward: dout"),
                                token_ids(sorted, dout.size(0)), order.const_data_ptr<int64_t>(),
                                rows(dtable, dtable.sizes(), "embedding_backward: dtable"),
                                sums.data_ptr<float>(), shape_of(dout), stream_);
}

Fused::AttentionLayout Fused::attention_layout(const at::Tensor& cu_seqlens,
                                               std::span<const int64_t> strides) const {
    check(cu_seqlens.dim() == 1 && cu_seqlens.size(0) > 0 && cu_seqlens.scalar_type() == at::kInt &&
              cu_seqlens.is_contiguous(),
          "attention_layout: cu_seqlens are not int32 [n + 1]");
    check(strides.size() <= static_cast<size_t>(raw::kMostLayouts), "attention_layout: takes 9 tensors");
    const int64_t documents = cu_seqlens.size(0) - 1, count = std::ssize(strides);
    AttentionLayout result{at::empty({documents}, cu_seqlens.options()),
                           at::empty({count, documents + 1}, cu_seqlens.options().dtype(at::kLong))};
    raw::AttentionLayout layout{.count = static_cast<int>(count),
                                .lengths = result.lengths.data_ptr<int32_t>(),
                                .offsets = result.offsets.data_ptr<int64_t>()};
    std::ranges::copy(strides, layout.strides);
    kernels_.attention_layout(cu_seqlens.const_data_ptr<int32_t>(), documents, layout, stream_);
    return result;
}

}  // namespace speedrun::ops::cuda
