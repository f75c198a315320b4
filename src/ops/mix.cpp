#include "ops/mix.h"

#include <ATen/ATen.h>

#include <array>
#include <type_traits>
#include <utility>

#include "ops/cpu/kernels.h"
#include "ops/cpu/rows.h"
#include "ops/cuda/fused.h"
#include "ops/wide.h"
#include "util/error.h"

namespace speedrun::ops {

namespace {

template <class T, size_t... J>
void mix_row(const std::array<cpu::Rows<const T>, sizeof...(J)>& sources, const float* coefficients,
             int64_t t, T* y, int64_t d, std::index_sequence<J...>) {
    const std::array<const T*, sizeof...(J)> s = {sources[J][t]...};
    const std::array<float, sizeof...(J)> c = {coefficients[J]...};
#pragma omp simd
    for (int64_t i = 0; i < d; ++i) cpu::store(y[i], (... + (c[J] * cpu::load(s[J][i]))));
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

void mix_rows(std::span<const at::Tensor> sources, const at::Tensor& coefficients, const at::Tensor& y,
              const RowNorm& norm) {
    check(!sources.empty() && sources.size() <= max_mix_sources, "mix: takes 1 to 8 sources");
    const float* c = cpu::flat<const float>(coefficients, std::ssize(sources), "mix: coefficients");
    const int64_t d = cpu::row_length(y);
    cpu::with_dtype(y.scalar_type(), [&]<class T>(T) {
        const auto to = cpu::rows<T>(y, y.sizes(), "mix: y");
        const auto normed = norm.normed ? cpu::rows<T>(*norm.normed, y.sizes(), "mix_norm: normed") : to;
        with_count(sources.size(), [&]<size_t N>(std::integral_constant<size_t, N>) {
            std::array<cpu::Rows<const T>, N> from;
            for (size_t j = 0; j < N; ++j) from[j] = cpu::rows<const T>(sources[j], y.sizes(), "mix: source");
            cpu::for_each_row(y.size(0), d, [&](int64_t t) {
                mix_row<T>(from, c, t, to[t], d, std::make_index_sequence<N>{});
                if (!norm.normed) return;
                norm.rstd[t] = cpu::reciprocal_rms(to[t], d, norm.eps);
                cpu::scale(to[t], norm.rstd[t], normed[t], d);
            });
        });
    });
}

}  // namespace

void mix(std::span<const at::Tensor> sources, const at::Tensor& coefficients, const at::Tensor& y) {
    if (y.is_meta()) return;
    if (cuda::fused(y)) return cuda::on_device_of(y).mix(sources, coefficients, y);
    if (!cpu::fused(y)) return reference::mix(sources, coefficients, y);
    mix_rows(sources, coefficients, y, {});
}

void mix_norm(std::span<const at::Tensor> sources, const at::Tensor& coefficients, double eps,
              const at::Tensor& y, const at::Tensor& normed, const at::Tensor& rstd) {
    if (y.is_meta()) return;
    if (cuda::fused(y)) return cuda::on_device_of(y).mix_norm(sources, coefficients, eps, y, normed, rstd);
    if (!cpu::fused(y)) return reference::mix_norm(sources, coefficients, eps, y, normed, rstd);
    float* r = cpu::flat<float>(rstd, y.size(0), "mix_norm: rstd");
    mix_rows(sources, coefficients, y, {&normed, r, static_cast<float>(eps)});
}

void reference::mix(std::span<const at::Tensor> sources, const at::Tensor& coefficients,
                    const at::Tensor& y) {
    check(!sources.empty() && sources.size() <= max_mix_sources, "mix: takes 1 to 8 sources");
    const auto term = [&](size_t j) {
        return wide(sources[j]) * coefficients.select(0, static_cast<int64_t>(j));
    };
    at::Tensor sum = term(0);
    for (size_t j = 1; j < sources.size(); ++j) sum += term(j);
    y.copy_(sum);
}

void reference::mix_norm(std::span<const at::Tensor> sources, const at::Tensor& coefficients, double eps,
                         const at::Tensor& y, const at::Tensor& normed, const at::Tensor& rstd) {
    reference::mix(sources, coefficients, y);
    const at::Tensor wide_y = wide(y).flatten(1);
    rstd.copy_((wide_y.square().mean(-1) + eps).rsqrt());
    normed.copy_((wide_y * rstd.unsqueeze(-1)).view(y.sizes()));
}

}  // namespace speedrun::ops
