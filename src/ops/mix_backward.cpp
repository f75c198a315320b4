#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "ops/cpu/kernels.h"
#include "ops/cpu/partials.h"
#include "ops/cpu/rows.h"
#include "ops/cuda/addresses.h"
#include "ops/mix.h"
#include "ops/mix_factor.h"
#include "ops/wide.h"
#include "util/error.h"

namespace speedrun::ops {

namespace {

void check_count(std::span<const MixSourceGrad> sources) {
    check(!sources.empty() && sources.size() <= max_mix_sources, "mix_backward: takes 1 to 8 sources");
}

bool reads_source(const MixSourceGrad& grad) {
    return grad.wants_coefficient || grad.dfactor.defined();
}

// One source of the mix; a null start says that a part is not wanted.
template <class T>
struct Source {
    cpu::Rows<const T> value;  // for the gradients of coefficient and factor
    cpu::Rows<T> gradient;
    FactorRows factor;
    float coefficient = 0;
    bool accumulate = false, wants_coefficient = false;
};

// Elements of dy held as fp32 on the stack, so that a gradient may be written over dy.
constexpr int64_t block_size = 1024;

// Channels [begin, begin + size) of a row, in which no factor changes.
struct Block {
    int64_t row = 0, begin = 0, size = 0;
    int64_t part = 0, parts = 1;  // of how many that have factors of their own
};

// First everything that reads, then what writes.
template <class T>
void mix_backward_block(const T* dy, std::span<const Source<T>> sources, const Block& block, float* dc) {
    std::array<float, block_size> above;
    cpu::scale(dy + block.begin, 1.0F, above.data(), block.size);
    const auto column = [&](const FactorRows& factor) { return block.part * factor.columns / block.parts; };
    for (size_t j = 0; j < sources.size(); ++j) {
        const Source<T>& source = sources[j];
        if (!source.value.start) continue;
        const float product = cpu::dot(above.data(), source.value[block.row] + block.begin, block.size);
        const FactorRows& factor = source.factor;
        if (source.wants_coefficient) dc[j] += factor.at(block.row, column(factor)) * product;
        if (factor.gradient)
            factor.gradient[block.row * factor.gradient_stride + column(factor)] +=
                source.coefficient * product;
    }
    for (const Source<T>& source : sources) {
        if (!source.gradient.start) continue;
        T* to = source.gradient[block.row] + block.begin;
        const float c = source.coefficient * source.factor.at(block.row, column(source.factor));
        if (source.accumulate)
            cpu::add_scaled(above.data(), c, to, block.size);
        else
            cpu::scale(above.data(), c, to, block.size);
    }
}

template <class T>
void mix_backward_rows(const at::Tensor& dy, std::span<const Source<T>> sources, const cpu::Chunks& chunks,
                       cpu::Partials& dc) {
    const auto above = cpu::rows<const T>(dy, dy.sizes(), "mix_backward: dy");
    const int64_t d = cpu::row_length(dy);
    int64_t parts = 1;
    for (const Source<T>& source : sources) parts = std::lcm(parts, source.factor.columns);
    check(d % parts == 0, "mix_backward: the columns of factors do not divide the channels together");
    const int64_t width = d / parts;
    chunks.for_each([&](int64_t chunk, int64_t first, int64_t last) {
        for (int64_t t = first; t < last; ++t)
            for (int64_t part = 0; part < parts; ++part)
                for (int64_t begin = 0; begin < width; begin += block_size)
                    mix_backward_block(
                        above[t], sources,
                        {t, part * width + begin, std::min(block_size, width - begin), part, parts},
                        dc[chunk]);
    });
}

template <class T>
Source<T> source_of(const MixSourceGrad& grad, float coefficient, const at::Tensor& dy) {
    Source<T> source;
    if (reads_source(grad))
        source.value = cpu::rows<const T>(grad.source.x, dy.sizes(), "mix_backward: source");
    if (grad.dx.defined()) source.gradient = cpu::rows<T>(grad.dx, dy.sizes(), "mix_backward: dx");
    source.factor = factor_rows(grad.source, grad.dfactor, dy);
    source.coefficient = coefficient;
    source.accumulate = grad.accumulate;
    source.wants_coefficient = grad.wants_coefficient;
    return source;
}

}  // namespace

void mix_backward(const at::Tensor& dy, std::span<const MixSourceGrad> sources,
                  const at::Tensor& coefficients, const at::Tensor& dcoefficients) {
    if (dy.is_meta()) return;
    if (cuda::fused(dy))
        return cuda::mix_backward(cuda::gpu_of(dy), dy, sources, coefficients, dcoefficients);
    if (!cpu::fused(dy)) return reference::mix_backward(dy, sources, coefficients, dcoefficients);
    check_count(sources);
    const size_t n = sources.size();
    const float* c = cpu::flat<const float>(coefficients, std::ssize(sources), "mix_backward: coefficients");
    const cpu::Chunks chunks(dy.size(0), cpu::row_length(dy));
    cpu::Partials dc(chunks, std::ssize(sources));
    cpu::with_dtype(dy.scalar_type(), [&]<class T>(T) {
        std::array<Source<T>, max_mix_sources> parts;
        for (size_t j = 0; j < n; ++j) parts[j] = source_of<T>(sources[j], c[j], dy);
        mix_backward_rows<T>(dy, std::span<const Source<T>>(parts.data(), n), chunks, dc);
    });
    for (size_t j = 0; j < n; ++j) {
        const auto at = static_cast<int64_t>(j);
        if (sources[j].wants_coefficient)
            dc.add_to(dcoefficients.narrow(0, at, 1), at, 1, "mix_backward: dcoefficients");
    }
}

void reference::mix_backward(const at::Tensor& dy, std::span<const MixSourceGrad> sources,
                             const at::Tensor& coefficients, const at::Tensor& dcoefficients) {
    check_count(sources);
    const at::Tensor above = wide(dy).clone();  // dy may be overwritten below
    const auto factor_of = [&](const MixSource& source) {
        return source.factor.defined() ? spread(source.factor + source.offset, dy) : at::ones_like(above);
    };
    for (size_t j = 0; j < sources.size(); ++j) {
        const MixSourceGrad& grad = sources[j];
        if (!reads_source(grad)) continue;
        const auto index = static_cast<int64_t>(j);
        const at::Tensor products = above * wide(grad.source.x);
        if (grad.wants_coefficient)
            dcoefficients.select(0, index) += (products * factor_of(grad.source)).sum();
        if (grad.dfactor.defined())
            grad.dfactor.add_(products.view({products.size(0), grad.dfactor.size(1), -1}).sum(-1) *
                              coefficients.select(0, index));
    }
    for (size_t j = 0; j < sources.size(); ++j) {
        const MixSourceGrad& grad = sources[j];
        if (!grad.dx.defined()) continue;
        const at::Tensor gradient =
            above * factor_of(grad.source) * coefficients.select(0, static_cast<int64_t>(j));
        grad.dx.copy_(grad.accumulate ? wide(grad.dx) + gradient : gradient);
    }
}

void cuda::mix_backward(const Gpu& gpu, const at::Tensor& dy, std::span<const MixSourceGrad> sources,
                        const at::Tensor& coefficients, const at::Tensor& dcoefficients) {
    check_count(sources);
    raw::MixBackward mix;
    mix.count = static_cast<int>(sources.size());
    mix.dy = rows(dy, dy.sizes(), "mix_backward: dy");
    for (size_t j = 0; j < sources.size(); ++j) {
        const MixSourceGrad& grad = sources[j];
        if (reads_source(grad)) mix.sources[j] = rows(grad.source.x, dy.sizes(), "mix_backward: source");
        mix.dsources[j] = rows(grad.dx, dy.sizes(), "mix_backward: dx");
        mix.factors[j] = kernel_factor(factor_rows(grad.source, grad.dfactor, dy));
        mix.accumulate[j] = grad.accumulate;
        mix.wants_coefficient[j] = grad.wants_coefficient;
    }
    mix.coefficients = floats(coefficients, mix.count, "mix_backward: coefficients");
    mix.dcoefficients = floats(dcoefficients, mix.count, "mix_backward: dcoefficients");
    const at::Tensor sums = at::empty({raw::kPartialSets * mix.count}, dy.options().dtype(at::kFloat));
    mix.partials = sums.data_ptr<float>();
    gpu.kernels.mix_backward(mix, shape_of(dy), gpu.stream);
}

}  // namespace speedrun::ops
