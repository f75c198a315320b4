#include "ops/mix.h"

#include <ATen/ATen.h>

#include <array>
#include <numeric>
#include <type_traits>
#include <utility>

#include "ops/cpu/kernels.h"
#include "ops/cpu/rows.h"
#include "ops/cuda/addresses.h"
#include "ops/mix_factor.h"
#include "ops/wide.h"
#include "util/error.h"

namespace speedrun::ops {

namespace {

template <class T, size_t... J>
void mix_channels(const std::array<const T*, sizeof...(J)>& s, const std::array<float, sizeof...(J)>& c, T* y,
                  int64_t begin, int64_t end, std::index_sequence<J...>) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) cpu::store(y[i], (... + (c[J] * cpu::load(s[J][i]))));
}

// Calls body with std::integral_constant<size_t, n>.
template <size_t N = 1, class Body>
void with_count(size_t n, const Body& body) {
    if (n == N) return body(std::integral_constant<size_t, N>{});
    if constexpr (N < max_mix_sources) with_count<N + 1>(n, body);
}

// What mix_norm does with a row of y that was just stored.
struct RowNorm {
    const at::Tensor* normed = nullptr;  // none: mix alone
    float* rstd = nullptr;
    float eps = 0;
};

// N sources as the rows of a mix. Channels in between which no factor changes are mixed at once.
template <class T, size_t N>
struct MixRows {
    MixRows(std::span<const MixSource> sources, const float* c, const at::Tensor& y) : d(cpu::row_length(y)) {
        for (size_t j = 0; j < N; ++j) {
            from[j] = cpu::rows<const T>(sources[j].x, y.sizes(), "mix: source");
            factors[j] = factor_rows(sources[j], {}, y);
            coefficients[j] = c[j];
            blocks = std::lcm(blocks, factors[j].columns);
        }
        check(d % blocks == 0, "mix: the columns of factors do not divide the channels together");
    }

    void row(int64_t t, T* y) const {
        std::array<const T*, N> s;
        std::array<float, N> c;
        for (size_t j = 0; j < N; ++j) s[j] = from[j][t];
        for (int64_t block = 0; block < blocks; ++block) {
            for (size_t j = 0; j < N; ++j)
                c[j] = coefficients[j] * factors[j].at(t, block * factors[j].columns / blocks);
            mix_channels<T>(s, c, y, block * d / blocks, (block + 1) * d / blocks,
                            std::make_index_sequence<N>{});
        }
    }

    int64_t d, blocks = 1;
    std::array<cpu::Rows<const T>, N> from;
    std::array<FactorRows, N> factors;
    std::array<float, N> coefficients;
};

void mix_rows(std::span<const MixSource> sources, const at::Tensor& coefficients, const at::Tensor& y,
              const RowNorm& norm) {
    check(!sources.empty() && sources.size() <= max_mix_sources, "mix: takes 1 to 8 sources");
    const float* c = cpu::flat<const float>(coefficients, std::ssize(sources), "mix: coefficients");
    cpu::with_dtype(y.scalar_type(), [&]<class T>(T) {
        const auto to = cpu::rows<T>(y, y.sizes(), "mix: y");
        const auto normed = norm.normed ? cpu::rows<T>(*norm.normed, y.sizes(), "mix_norm: normed") : to;
        with_count(sources.size(), [&]<size_t N>(std::integral_constant<size_t, N>) {
            const MixRows<T, N> rows(sources, c, y);
            cpu::for_each_row(y.size(0), rows.d, [&](int64_t t) {
                rows.row(t, to[t]);
                if (!norm.normed) return;
                norm.rstd[t] = cpu::reciprocal_rms(to[t], rows.d, norm.eps);
                cpu::scale(to[t], norm.rstd[t], normed[t], rows.d);
            });
        });
    });
}

}  // namespace

void mix(std::span<const MixSource> sources, const at::Tensor& coefficients, const at::Tensor& y) {
    if (y.is_meta()) return;
    if (cuda::fused(y)) return cuda::mix(cuda::gpu_of(y), sources, coefficients, y);
    if (!cpu::fused(y)) return reference::mix(sources, coefficients, y);
    mix_rows(sources, coefficients, y, {});
}

void mix_norm(std::span<const MixSource> sources, const at::Tensor& coefficients, double eps,
              const at::Tensor& y, const at::Tensor& normed, const at::Tensor& rstd) {
    if (y.is_meta()) return;
    if (cuda::fused(y)) return cuda::mix_norm(cuda::gpu_of(y), sources, coefficients, eps, y, normed, rstd);
    if (!cpu::fused(y)) return reference::mix_norm(sources, coefficients, eps, y, normed, rstd);
    float* r = cpu::flat<float>(rstd, y.size(0), "mix_norm: rstd");
    mix_rows(sources, coefficients, y, {&normed, r, static_cast<float>(eps)});
}

// [T, C] as [T, ...] of x's own shape.
at::Tensor reference::spread(const at::Tensor& columns, const at::Tensor& x) {
    const int64_t channels = x.numel() / x.size(0);
    return columns.repeat_interleave(channels / columns.size(1), 1).view(x.sizes());
}

void reference::mix(std::span<const MixSource> sources, const at::Tensor& coefficients, const at::Tensor& y) {
    check(!sources.empty() && sources.size() <= max_mix_sources, "mix: takes 1 to 8 sources");
    at::Tensor sum;
    for (size_t j = 0; j < sources.size(); ++j) {
        const MixSource& source = sources[j];
        at::Tensor term = wide(source.x) * coefficients.select(0, static_cast<int64_t>(j));
        if (source.factor.defined()) term = term * spread(source.factor + source.offset, source.x);
        sum = j == 0 ? term : sum + term;
    }
    y.copy_(sum);
}

void reference::mix_norm(std::span<const MixSource> sources, const at::Tensor& coefficients, double eps,
                         const at::Tensor& y, const at::Tensor& normed, const at::Tensor& rstd) {
    reference::mix(sources, coefficients, y);
    const at::Tensor wide_y = wide(y).flatten(1);
    rstd.copy_((wide_y.square().mean(-1) + eps).rsqrt());
    normed.copy_((wide_y * rstd.unsqueeze(-1)).view(y.sizes()));
}

namespace cuda {
namespace {

raw::Mix mix_of(std::span<const MixSource> sources, const at::Tensor& coefficients, const at::Tensor& y) {
    check(!sources.empty() && sources.size() <= max_mix_sources, "mix: takes 1 to 8 sources");
    raw::Mix mix;
    mix.count = static_cast<int>(sources.size());
    for (size_t j = 0; j < sources.size(); ++j) {
        mix.sources[j] = rows(sources[j].x, y.sizes(), "mix: source");
        check(mix.sources[j].type == scalar(y, "mix: y"), "mix: sources of several dtypes");
        mix.factors[j] = kernel_factor(factor_rows(sources[j], {}, y));
    }
    mix.coefficients = floats(coefficients, mix.count, "mix: coefficients");
    mix.y = rows(y, y.sizes(), "mix: y");
    return mix;
}

}  // namespace

void mix(const Gpu& gpu, std::span<const MixSource> sources, const at::Tensor& coefficients,
         const at::Tensor& y) {
    gpu.kernels.mix(mix_of(sources, coefficients, y), shape_of(y), gpu.stream);
}

void mix_norm(const Gpu& gpu, std::span<const MixSource> sources, const at::Tensor& coefficients, double eps,
              const at::Tensor& y, const at::Tensor& normed, const at::Tensor& rstd) {
    raw::Mix mix = mix_of(sources, coefficients, y);
    mix.normed = rows(normed, y.sizes(), "mix_norm: normed");
    mix.rstd = floats(rstd, y.size(0), "mix_norm: rstd");
    mix.eps = static_cast<float>(eps);
    gpu.kernels.mix(mix, shape_of(y), gpu.stream);
}

}  // namespace cuda
}  // namespace speedrun::ops
