#include "ops/key_offset.h"

#include <ATen/ATen.h>

#include <cstring>

#include "ops/cpu/kernels.h"
#include "ops/cpu/rows.h"
#include "ops/cuda/addresses.h"
#include "ops/wide.h"
#include "util/error.h"

namespace speedrun::ops {

void reference::key_offset(const at::Tensor& x, std::span<const HeadChannels> channels, const at::Tensor& y) {
    y.copy_(x);
    const int64_t later = x.size(0) - 1;
    for (const auto& [begin, end] : channels)
        y.narrow(0, 1, later)
            .narrow(2, begin, end - begin)
            .copy_(x.narrow(0, 0, later).narrow(2, begin, end - begin));
}

void reference::key_offset_backward(const at::Tensor& dy, std::span<const HeadChannels> channels,
                                    const at::Tensor& dx) {
    dx.copy_(dy);
    const int64_t later = dy.size(0) - 1;
    for (const auto& [begin, end] : channels) {
        const at::Tensor above = wide(dy.narrow(2, begin, end - begin)),
                         to = dx.narrow(2, begin, end - begin);
        const at::Tensor moved = at::zeros_like(above);
        moved.narrow(0, 0, later).copy_(above.narrow(0, 1, later));
        moved[0] += above[0];
        to.copy_(moved);
    }
}

namespace {

void check_channels(const at::Tensor& x, std::span<const HeadChannels> channels) {
    check(x.dim() == 3 && channels.size() <= most_offset_channels, "key_offset: x is [T, H, D]");
    for (const auto& [begin, end] : channels)
        check(begin >= 0 && begin < end && end <= x.size(2), "key_offset: channels within a head");
}

// Calls body(first element, count) for each range of each head of a row.
template <class Body>
void for_each_range(int64_t heads, int64_t head_dim, std::span<const HeadChannels> channels,
                    const Body& body) {
    for (int64_t h = 0; h < heads; ++h)
        for (const auto& [begin, end] : channels) body(h * head_dim + begin, end - begin);
}

}  // namespace

void key_offset(const at::Tensor& x, std::span<const HeadChannels> channels, const at::Tensor& y) {
    if (x.is_meta()) return;
    if (cuda::fused(x)) return cuda::key_offset(cuda::gpu_of(x), x, channels, y);
    if (!cpu::fused(x)) return reference::key_offset(x, channels, y);
    check_channels(x, channels);
    const int64_t heads = x.size(1), head_dim = x.size(2), d = heads * head_dim;
    cpu::with_dtype(x.scalar_type(), [&]<class T>(T) {
        const auto from = cpu::rows<const T>(x, x.sizes(), "key_offset: x");
        const auto to = cpu::rows<T>(y, x.sizes(), "key_offset: y");
        cpu::for_each_row(x.size(0), d, [&](int64_t t) {
            std::memcpy(to[t], from[t], static_cast<size_t>(d) * sizeof(T));
            if (t == 0) return;
            for_each_range(heads, head_dim, channels, [&](int64_t at, int64_t count) {
                std::memcpy(to[t] + at, from[t - 1] + at, static_cast<size_t>(count) * sizeof(T));
            });
        });
    });
}

void key_offset_backward(const at::Tensor& dy, std::span<const HeadChannels> channels, const at::Tensor& dx) {
    if (dy.is_meta()) return;
    if (cuda::fused(dy)) return cuda::key_offset_backward(cuda::gpu_of(dy), dy, channels, dx);
    if (!cpu::fused(dy)) return reference::key_offset_backward(dy, channels, dx);
    check_channels(dy, channels);
    const int64_t heads = dy.size(1), head_dim = dy.size(2), d = heads * head_dim, last = dy.size(0) - 1;
    cpu::with_dtype(dy.scalar_type(), [&]<class T>(T) {
        const auto from = cpu::rows<const T>(dy, dy.sizes(), "key_offset_backward: dy");
        const auto to = cpu::rows<T>(dx, dy.sizes(), "key_offset_backward: dx");
        cpu::for_each_row(dy.size(0), d, [&](int64_t t) {
            std::memcpy(to[t], from[t], static_cast<size_t>(d) * sizeof(T));
            for_each_range(heads, head_dim, channels, [&](int64_t at, int64_t count) {
                for (int64_t i = at; i < at + count; ++i) {
                    const float own = t == 0 ? cpu::load(from[t][i]) : 0;
                    cpu::store(to[t][i], t == last ? own : own + cpu::load(from[t + 1][i]));
                }
            });
        });
    });
}

namespace cuda {
namespace {

raw::KeyOffset offset_of(const at::Tensor& x, std::span<const HeadChannels> channels) {
    check_channels(x, channels);
    raw::KeyOffset offset{.head_dim = x.size(2)};
    for (size_t i = 0; i < channels.size(); ++i) {
        offset.begin[i] = channels[i].begin;
        offset.end[i] = channels[i].end;
    }
    return offset;
}

}  // namespace

void key_offset(const Gpu& gpu, const at::Tensor& x, std::span<const HeadChannels> channels,
                const at::Tensor& y) {
    gpu.kernels.key_offset(rows(x, x.sizes(), "key_offset: x"), offset_of(x, channels),
                           rows(y, x.sizes(), "key_offset: y"), shape_of(x), gpu.stream);
}

void key_offset_backward(const Gpu& gpu, const at::Tensor& dy, std::span<const HeadChannels> channels,
                         const at::Tensor& dx) {
    gpu.kernels.key_offset_backward(rows(dy, dy.sizes(), "key_offset_backward: dy"), offset_of(dy, channels),
                                    rows(dx, dy.sizes(), "key_offset_backward: dx"), shape_of(dy),
                                    gpu.stream);
}

}  // namespace cuda

}  // namespace speedrun::ops
