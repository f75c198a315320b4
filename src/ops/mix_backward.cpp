#include <ATen/ATen.h>

#include <algorithm>
#include <array>

#include "ops/cpu/kernels.h"
#include "ops/cpu/partials.h"
#include "ops/cpu/rows.h"
#include "ops/cuda/fused.h"
#include "ops/mix.h"
#include "ops/wide.h"
#include "util/error.h"

namespace speedrun::ops {

namespace {

void check_counts(std::span<const at::Tensor> sources, std::span<const at::Tensor> dsources,
                  std::span<const uint8_t> accumulate, std::span<const uint8_t> wants_dc) {
    const size_t n = sources.size();
    check(n >= 1 && n <= max_mix_sources, "mix_backward: takes 1 to 8 sources");
    check(dsources.size() == n && accumulate.size() == n && wants_dc.size() == n,
          "mix_backward: one gradient, accumulate and wants_dc for every source");
}

// One source of the mix; a null start says that a part is not wanted.
template <class T>
struct Source {
    cpu::Rows<const T> value;  // for dc
    cpu::Rows<T> gradient;
    float coefficient = 0;
    bool accumulate = false;
};

// Elements of dy held as fp32 on the stack, so that a gradient may be written over dy.
constexpr int64_t block_size = 1024;

// One block of one row: first everything that reads, then what writes.
template <class T>
void mix_backward_block(const T* dy, std::span<const Source<T>> sources, int64_t row, int64_t begin,
                        int64_t size, float* dc) {
    std::array<float, block_size> block;
    cpu::scale(dy, 1.0F, block.data(), size);
    for (size_t j = 0; j < sources.size(); ++j) {
        if (sources[j].value.start) dc[j] += cpu::dot(block.data(), sources[j].value[row] + begin, size);
    }
    for (const Source<T>& source : sources) {
        if (!source.gradient.start) continue;
        T* to = source.gradient[row] + begin;
        if (source.accumulate) {
            cpu::add_scaled(block.data(), source.coefficient, to, size);
        } else {
            cpu::scale(block.data(), source.coefficient, to, size);
        }
    }
}

template <class T>
void mix_backward_rows(const at::Tensor& dy, std::span<const Source<T>> sources, const cpu::Chunks& chunks,
                       cpu::Partials& dc) {
    const auto above = cpu::rows<const T>(dy, dy.sizes(), "mix_backward: dy");
    const int64_t d = cpu::row_length(dy);
    chunks.for_each([&](int64_t chunk, int64_t first, int64_t last) {
        for (int64_t t = first; t < last; ++t) {
            for (int64_t begin = 0; begin < d; begin += block_size) {
                const int64_t size = std::min(block_size, d - begin);
                mix_backward_block(above[t] + begin, sources, t, begin, size, dc[chunk]);
            }
        }
    });
}

}  // namespace

void mix_backward(const at::Tensor& dy, std::span<const at::Tensor> sources, const at::Tensor& coefficients,
                  std::span<const at::Tensor> dsources, std::span<const uint8_t> accumulate,
                  const at::Tensor& dcoefficients, std::span<const uint8_t> wants_dc) {
    if (dy.is_meta()) return;
    if (cuda::fused(dy))
        return cuda::on_device_of(dy).mix_backward(dy, sources, coefficients, dsources, accumulate,
                                                   dcoefficients, wants_dc);
    if (!cpu::fused(dy)) {
        return reference::mix_backward(dy, sources, coefficients, dsources, accumulate, dcoefficients,
                                       wants_dc);
    }
    check_counts(sources, dsources, accumulate, wants_dc);
    const size_t n = sources.size();
    const float* c = cpu::flat<const float>(coefficients, std::ssize(sources), "mix_backward: coefficients");
    const cpu::Chunks chunks(dy.size(0), cpu::row_length(dy));
    cpu::Partials dc(chunks, std::ssize(sources));
    cpu::with_dtype(dy.scalar_type(), [&]<class T>(T) {
        std::array<Source<T>, max_mix_sources> parts;
        for (size_t j = 0; j < n; ++j) {
            if (wants_dc[j])
                parts[j].value = cpu::rows<const T>(sources[j], dy.sizes(), "mix_backward: source");
            if (dsources[j].defined()) {
                parts[j].gradient = cpu::rows<T>(dsources[j], dy.sizes(), "mix_backward: dsource");
            }
            parts[j].coefficient = c[j];
            parts[j].accumulate = accumulate[j] != 0;
        }
        mix_backward_rows<T>(dy, std::span<const Source<T>>(parts.data(), n), chunks, dc);
    });
    for (size_t j = 0; j < n; ++j) {
        if (!wants_dc[j]) continue;
        const auto at = static_cast<int64_t>(j);
        dc.add_to(dcoefficients.narrow(0, at, 1), at, 1, "mix_backward: dcoefficients");
    }
}

void reference::mix_backward(const at::Tensor& dy, std::span<const at::Tensor> sources,
                             const at::Tensor& coefficients, std::span<const at::Tensor> dsources,
                             std::span<const uint8_t> accumulate, const at::Tensor& dcoefficients,
                             std::span<const uint8_t> wants_dc) {
    check_counts(sources, dsources, accumulate, wants_dc);
    const at::Tensor above = wide(dy).clone();  // dy may be overwritten below
    for (size_t j = 0; j < sources.size(); ++j) {
        if (wants_dc[j]) dcoefficients.select(0, static_cast<int64_t>(j)) += (above * wide(sources[j])).sum();
    }
    for (size_t j = 0; j < sources.size(); ++j) {
        if (!dsources[j].defined()) continue;
        const at::Tensor gradient = above * coefficients.select(0, static_cast<int64_t>(j));
        dsources[j].copy_(accumulate[j] ? wide(dsources[j]) + gradient : gradient);
    }
}

}  // namespace speedrun::ops
