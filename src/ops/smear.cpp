#include "ops/smear.h"

#include <ATen/ATen.h>

#include "ops/cpu/kernels.h"
#include "ops/cpu/partials.h"
#include "ops/cpu/rows.h"
#include "ops/cuda/addresses.h"
#include "ops/wide.h"
#include "util/error.h"

namespace speedrun::ops {
namespace {

// By what e_{t-1} is multiplied, without lambda.
class Factors {
  public:
    Factors(const at::Tensor& factor, int64_t tokens)
        : data_(factor.defined() ? cpu::flat<const float>(factor, tokens, "smear: factor") : nullptr) {}
    float operator[](int64_t t) const { return data_ ? data_[t] : 1; }

  private:
    const float* data_;
};

template <class T>
void smear_row(const T* e, const T* previous, float weight, T* out, int64_t d) {
#pragma omp simd
    for (int64_t i = 0; i < d; ++i) cpu::store(out[i], cpu::load(e[i]) + weight * cpu::load(previous[i]));
}

}  // namespace

void smear(const at::Tensor& e, const at::Tensor& lambda, const at::Tensor& factor, const at::Tensor& out) {
    if (e.is_meta()) return;
    if (cuda::fused(e)) return cuda::smear(cuda::gpu_of(e), e, lambda, factor, out);
    if (!cpu::fused(e)) return reference::smear(e, lambda, factor, out);
    const int64_t d = cpu::row_length(e);
    const float scale = *cpu::flat<const float>(lambda, 1, "smear: lambda");
    const Factors factors(factor, e.size(0));
    cpu::with_dtype(e.scalar_type(), [&]<class T>(T) {
        const auto from = cpu::rows<const T>(e, e.sizes(), "smear: e");
        const auto to = cpu::rows<T>(out, e.sizes(), "smear: out");
        cpu::for_each_row(e.size(0), d, [&](int64_t t) {
            smear_row(from[t], from[t == 0 ? t : t - 1], t == 0 ? 0 : scale * factors[t], to[t], d);
        });
    });
}

void smear_backward(const at::Tensor& dout, const at::Tensor& e, const at::Tensor& lambda,
                    const at::Tensor& factor, const at::Tensor& de, const at::Tensor& dfactor,
                    const at::Tensor& dlambda) {
    if (e.is_meta()) return;
    if (cuda::fused(e))
        return cuda::smear_backward(cuda::gpu_of(e), dout, e, lambda, factor, de, dfactor, dlambda);
    if (!cpu::fused(e)) return reference::smear_backward(dout, e, lambda, factor, de, dfactor, dlambda);
    const int64_t last = e.size(0) - 1, d = cpu::row_length(e);
    const float scale = *cpu::flat<const float>(lambda, 1, "smear_backward: lambda");
    const Factors factors(factor, e.size(0));
    float* df = dfactor.defined() ? cpu::flat<float>(dfactor, e.size(0), "smear_backward: dfactor") : nullptr;
    const cpu::Chunks chunks(e.size(0), d);
    cpu::Partials sums(chunks, 1);
    cpu::with_dtype(e.scalar_type(), [&]<class T>(T) {
        const auto above = cpu::rows<const T>(dout, e.sizes(), "smear_backward: dout");
        const auto from = cpu::rows<const T>(e, e.sizes(), "smear_backward: e");
        const auto to = cpu::rows<T>(de, e.sizes(), "smear_backward: de");
        chunks.for_each([&](int64_t chunk, int64_t begin, int64_t end) {
            for (int64_t t = begin; t < end; ++t) {
                const float inner = t == 0 ? 0.0F : cpu::dot(above[t], from[t - 1], d);
                const float weight = t == last ? 0.0F : scale * factors[t + 1];
                smear_row(above[t], above[t == last ? t : t + 1], weight, to[t], d);
                sums[chunk][0] += factors[t] * inner;
                if (df) df[t] += scale * inner;
            }
        });
    });
    sums.add_to(dlambda, 0, 1, "smear_backward: dlambda");
}

void reference::smear(const at::Tensor& e, const at::Tensor& lambda, const at::Tensor& factor,
                      const at::Tensor& out) {
    const at::Tensor wide_e = wide(e);
    at::Tensor before = wide_e.roll(1, 0);
    before.narrow(0, 0, 1).zero_();
    at::Tensor weighted = before * lambda.reshape({1});
    if (factor.defined()) weighted = weighted * factor.unsqueeze(-1);
    out.copy_(wide_e + weighted);
}

void reference::smear_backward(const at::Tensor& dout, const at::Tensor& e, const at::Tensor& lambda,
                               const at::Tensor& factor, const at::Tensor& de, const at::Tensor& dfactor,
                               const at::Tensor& dlambda) {
    const at::Tensor above = wide(dout), wide_e = wide(e), scale = lambda.reshape({1});
    at::Tensor inner = (above * wide_e.roll(1, 0)).sum(-1);
    inner.narrow(0, 0, 1).zero_();
    at::Tensor weighted = factor.defined() ? above * factor.unsqueeze(-1) * scale : above * scale;
    weighted.narrow(0, 0, 1).zero_();  // nothing was added to the first token
    de.copy_(above + weighted.roll(-1, 0));
    if (dfactor.defined()) dfactor.add_(inner * scale);
    dlambda.add_((factor.defined() ? inner * factor : inner).sum().view(dlambda.sizes()));
}

namespace cuda {
namespace {

raw::Smear smear_of(const at::Tensor& e, const at::Tensor& lambda, const at::Tensor& factor) {
    return {floats(lambda, 1, "smear: lambda"), floats(factor, e.size(0), "smear: factor")};
}

}  // namespace

void smear(const Gpu& gpu, const at::Tensor& e, const at::Tensor& lambda, const at::Tensor& factor,
           const at::Tensor& out) {
    gpu.kernels.smear(rows(e, e.sizes(), "smear: e"), smear_of(e, lambda, factor),
                      rows(out, e.sizes(), "smear: out"), shape_of(e), gpu.stream);
}

void smear_backward(const Gpu& gpu, const at::Tensor& dout, const at::Tensor& e, const at::Tensor& lambda,
                    const at::Tensor& factor, const at::Tensor& de, const at::Tensor& dfactor,
                    const at::Tensor& dlambda) {
    const at::Tensor partials = at::empty({raw::kPartialSets}, lambda.options());
    gpu.kernels.smear_backward(
        rows(dout, e.sizes(), "smear_backward: dout"), rows(e, e.sizes(), "smear_backward: e"),
        smear_of(e, lambda, factor), rows(de, e.sizes(), "smear_backward: de"),
        floats(dfactor, e.size(0), "smear_backward: dfactor"), floats(dlambda, 1, "smear_backward: dlambda"),
        partials.data_ptr<float>(), shape_of(e), gpu.stream);
}

}  // namespace cuda
}  // namespace speedrun::ops
