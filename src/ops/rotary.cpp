#include "ops/rotary.h"

#include <ATen/ATen.h>

#include <array>

#include "ops/cpu/kernels.h"
#include "ops/cpu/rows.h"
#include "ops/cuda/addresses.h"
#include "ops/wide.h"
#include "util/error.h"

namespace speedrun::ops {

namespace {

// The two numbers of each pair, [T, H, D/2] each, and back.
std::array<at::Tensor, 2> pairs_of(const at::Tensor& x, const RotaryTables& tables) {
    if (tables.layout == RotaryTables::Layout::halves) {
        const auto halves = x.chunk(2, -1);
        return {halves[0], halves[1]};
    }
    const at::Tensor pairs = x.unflatten(-1, {-1, 2});
    return {pairs.select(-1, 0), pairs.select(-1, 1)};
}

at::Tensor channels_of(const at::Tensor& first, const at::Tensor& second, const RotaryTables& tables) {
    return tables.layout == RotaryTables::Layout::halves ? at::cat({first, second}, -1)
                                                         : at::stack({first, second}, -1).flatten(-2);
}

// The rows of a table for [T, H, D]: [T, 1, D/2], or [T, H, D/2].
at::Tensor rows_for(const at::Tensor& table, const at::Tensor& x, const RotaryTables& tables) {
    const int64_t tokens = x.size(0), heads = x.size(1);
    if (!tables.paired) return table.narrow(0, 0, tokens).unsqueeze(1);
    const auto index = at::TensorOptions().dtype(at::kLong).device(x.device());
    const at::Tensor position =
        at::arange(tokens, index).mul(2).unsqueeze(1) + at::arange(heads, index).remainder(2);
    return table.index_select(0, position.flatten()).view({tokens, heads, -1});
}

}  // namespace

void reference::qk_norm_rotary(const at::Tensor& x, const RotaryTables& tables, double eps,
                               const at::Tensor& y, const at::Tensor& rstd) {
    const at::Tensor wide_x = wide(x);
    rstd.copy_((wide_x.square().mean(-1) + eps).rsqrt());
    const auto n = pairs_of(wide_x * rstd.unsqueeze(-1), tables);
    const at::Tensor c = rows_for(tables.cos, x, tables), s = rows_for(tables.sin, x, tables);
    y.copy_(channels_of(n[0] * c + n[1] * s, n[1] * c - n[0] * s, tables));
}

void reference::qk_norm_rotary_backward(const at::Tensor& dy, const at::Tensor& x, const RotaryTables& tables,
                                        const at::Tensor& rstd, const at::Tensor& dx) {
    const auto above = pairs_of(wide(dy), tables);
    const at::Tensor c = rows_for(tables.cos, x, tables), s = rows_for(tables.sin, x, tables);
    const at::Tensor dn = channels_of(above[0] * c - above[1] * s, above[0] * s + above[1] * c, tables);
    const at::Tensor wide_x = wide(x), r = rstd.unsqueeze(-1);
    dx.copy_(r * (dn - wide_x * r.square() * (dn * wide_x).mean(-1, true)));
}

namespace {

constexpr int64_t max_half = 512;  // pairs in a head

// How many a table must have.
int64_t positions(const at::Tensor& x, const RotaryTables& tables) {
    return tables.paired ? 2 * x.size(0) : x.size(0);
}

// cos and sin of one position as fp32.
struct Angles {
    std::array<float, max_half> cos, sin;
};

// Reads rows of the cos and sin tables.
template <class Table>
class AngleRows {
  public:
    AngleRows(const RotaryTables& tables, const at::Tensor& x) : half_(x.size(2) / 2) {
        const at::Tensor &cos = tables.cos, &sin = tables.sin;
        check(x.dim() == 3 && x.size(2) % 2 == 0 && half_ <= max_half,
              "rotary: x is [T, H, D], D even, at most 1024");
        check(cos.dim() == 2 && cos.size(0) >= positions(x, tables) && cos.size(1) == half_,
              "rotary: cos is [T' >= T, D/2]");
        cos_ = cpu::rows<const Table>(cos, cos.sizes(), "rotary: cos");
        sin_ = cpu::rows<const Table>(sin, cos.sizes(), "rotary: sin has the shape and dtype of cos");
    }

    void read(int64_t position, Angles& to) const {
        cpu::scale(cos_[position], 1.0F, to.cos.data(), half_);
        cpu::scale(sin_[position], 1.0F, to.sin.data(), half_);
    }

  private:
    int64_t half_;
    cpu::Rows<const Table> cos_, sin_;
};

// Where the numbers of pair i lie in a head.
template <RotaryTables::Layout layout>
struct PairOf {
    static constexpr bool halves = layout == RotaryTables::Layout::halves;
    int64_t half;
    int64_t first(int64_t i) const { return halves ? i : 2 * i; }
    int64_t second(int64_t i) const { return halves ? half + i : 2 * i + 1; }
};

template <RotaryTables::Layout layout, class T>
void rotate_head(const T* x, float rstd, const Angles& angles, T* y, int64_t half) {
    const PairOf<layout> at{half};
#pragma omp simd
    for (int64_t i = 0; i < half; ++i) {
        const float n1 = rstd * cpu::load(x[at.first(i)]), n2 = rstd * cpu::load(x[at.second(i)]);
        cpu::store(y[at.first(i)], n1 * angles.cos[i] + n2 * angles.sin[i]);
        cpu::store(y[at.second(i)], n2 * angles.cos[i] - n1 * angles.sin[i]);
    }
}

// The gradient of the rotation (its transpose), then of the norm.
template <RotaryTables::Layout layout, class T>
void rotate_head_backward(const T* dy, const T* x, float rstd, const Angles& angles, T* dx, int64_t half) {
    const PairOf<layout> at{half};
    std::array<float, max_half> dn1, dn2;
    float sum1 = 0, sum2 = 0;
#pragma omp simd reduction(+ : sum1, sum2)
    for (int64_t i = 0; i < half; ++i) {
        const float d1 = cpu::load(dy[at.first(i)]), d2 = cpu::load(dy[at.second(i)]);
        dn1[i] = d1 * angles.cos[i] - d2 * angles.sin[i];
        dn2[i] = d1 * angles.sin[i] + d2 * angles.cos[i];
        sum1 += dn1[i] * cpu::load(x[at.first(i)]);
        sum2 += dn2[i] * cpu::load(x[at.second(i)]);
    }
    const float slope = rstd * rstd * rstd * (sum1 + sum2) / static_cast<float>(2 * half);
#pragma omp simd
    for (int64_t i = 0; i < half; ++i) {
        cpu::store(dx[at.first(i)], rstd * dn1[i] - slope * cpu::load(x[at.first(i)]));
        cpu::store(dx[at.second(i)], rstd * dn2[i] - slope * cpu::load(x[at.second(i)]));
    }
}

// Calls body.operator()<layout>(t, angles of its even heads, angles of its odd ones) for every token, in
// parallel.
template <class Body>
void for_each_token(const RotaryTables& tables, const at::Tensor& x, const Body& body) {
    using Layout = RotaryTables::Layout;
    cpu::with_dtype(tables.cos.scalar_type(), [&]<class Table>(Table) {
        const AngleRows<Table> table(tables, x);
        cpu::for_each_row(x.size(0), cpu::row_length(x), [&](int64_t t) {
            std::array<Angles, 2> angles;
            table.read(tables.paired ? 2 * t : t, angles[0]);
            if (tables.paired) table.read(2 * t + 1, angles[1]);
            const Angles& odd = angles[tables.paired ? 1 : 0];
            if (tables.layout == Layout::halves)
                body.template operator()<Layout::halves>(t, angles[0], odd);
            else
                body.template operator()<Layout::pairs>(t, angles[0], odd);
        });
    });
}

}  // namespace

void qk_norm_rotary(const at::Tensor& x, const RotaryTables& tables, double eps, const at::Tensor& y,
                    const at::Tensor& rstd) {
    if (x.is_meta()) return;
    if (cuda::fused(x)) return cuda::qk_norm_rotary(cuda::gpu_of(x), x, tables, eps, y, rstd);
    if (!cpu::fused(x)) return reference::qk_norm_rotary(x, tables, eps, y, rstd);
    check(x.dim() == 3, "qk_norm_rotary: x is [T, H, D]");
    const int64_t heads = x.size(1), d = x.size(2);
    float* r = cpu::flat<float>(rstd, x.size(0) * heads, "qk_norm_rotary: rstd");
    cpu::with_dtype(x.scalar_type(), [&]<class T>(T) {
        const auto from = cpu::rows<const T>(x, x.sizes(), "qk_norm_rotary: x");
        const auto to = cpu::rows<T>(y, x.sizes(), "qk_norm_rotary: y");
        const auto token = [&]<RotaryTables::Layout layout>(int64_t t, const Angles& even,
                                                            const Angles& odd) {
            for (int64_t h = 0; h < heads; ++h) {
                const T* head = from[t] + h * d;
                const float scale = cpu::reciprocal_rms(head, d, static_cast<float>(eps));
                r[t * heads + h] = scale;
                rotate_head<layout>(head, scale, h % 2 == 0 ? even : odd, to[t] + h * d, d / 2);
            }
        };
        for_each_token(tables, x, token);
    });
}

void qk_norm_rotary_backward(const at::Tensor& dy, const at::Tensor& x, const RotaryTables& tables,
                             const at::Tensor& rstd, const at::Tensor& dx) {
    if (x.is_meta()) return;
    if (cuda::fused(x)) return cuda::qk_norm_rotary_backward(cuda::gpu_of(x), dy, x, tables, rstd, dx);
    if (!cpu::fused(x)) return reference::qk_norm_rotary_backward(dy, x, tables, rstd, dx);
    check(x.dim() == 3, "qk_norm_rotary_backward: x is [T, H, D]");
    const int64_t heads = x.size(1), d = x.size(2);
    const float* r = cpu::flat<const float>(rstd, x.size(0) * heads, "qk_norm_rotary_backward: rstd");
    cpu::with_dtype(x.scalar_type(), [&]<class T>(T) {
        const auto above = cpu::rows<const T>(dy, x.sizes(), "qk_norm_rotary_backward: dy");
        const auto from = cpu::rows<const T>(x, x.sizes(), "qk_norm_rotary_backward: x");
        const auto to = cpu::rows<T>(dx, x.sizes(), "qk_norm_rotary_backward: dx");
        const auto token = [&]<RotaryTables::Layout layout>(int64_t t, const Angles& even,
                                                            const Angles& odd) {
            for (int64_t h = 0; h < heads; ++h) {
                const int64_t at = h * d;
                rotate_head_backward<layout>(above[t] + at, from[t] + at, r[t * heads + h],
                                             h % 2 == 0 ? even : odd, to[t] + at, d / 2);
            }
        };
        for_each_token(tables, x, token);
    });
}

namespace cuda {
namespace {

raw::Rotary rotary_of(const at::Tensor& x, const RotaryTables& tables) {
    const auto& [cos, sin, layout, paired] = tables;
    check(x.dim() == 3 && x.size(2) % 2 == 0 && cos.dim() == 2 && cos.size(0) >= positions(x, tables) &&
              cos.size(1) == x.size(2) / 2,
          "rotary: x is [T, H, D], D even, cos [T' >= T, D/2]");
    check(cos.scalar_type() == sin.scalar_type(), "rotary: cos and sin of one dtype");
    return {rows(cos, cos.sizes(), "rotary: cos"), rows(sin, cos.sizes(), "rotary: sin"), x.size(1),
            layout == RotaryTables::Layout::pairs, paired};
}

}  // namespace

void qk_norm_rotary(const Gpu& gpu, const at::Tensor& x, const RotaryTables& tables, double eps,
                    const at::Tensor& y, const at::Tensor& rstd) {
    gpu.kernels.qk_norm_rotary(rows(x, x.sizes(), "qk_norm_rotary: x"), rotary_of(x, tables),
                               static_cast<float>(eps), rows(y, x.sizes(), "qk_norm_rotary: y"),
                               floats(rstd, x.size(0) * x.size(1), "qk_norm_rotary: rstd"), shape_of(x),
                               gpu.stream);
}

void qk_norm_rotary_backward(const Gpu& gpu, const at::Tensor& dy, const at::Tensor& x,
                             const RotaryTables& tables, const at::Tensor& rstd, const at::Tensor& dx) {
    gpu.kernels.qk_norm_rotary_backward(
        rows(dy, x.sizes(), "qk_norm_rotary_backward: dy"), rows(x, x.sizes(), "qk_norm_rotary_backward: x"),
        rotary_of(x, tables), floats(rstd, x.size(0) * x.size(1), "qk_norm_rotary_backward: rstd"),
        rows(dx, x.sizes(), "qk_norm_rotary_backward: dx"), shape_of(x), gpu.stream);
}

}  // namespace cuda

}  // namespace speedrun::ops
