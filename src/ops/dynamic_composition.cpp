#include "ops/dynamic_composition.h"

#include <ATen/ATen.h>

#include <limits>

#include "ops/attention/cpu/composition.h"
#include "ops/cpu/rows.h"
#include "ops/cuda/addresses.h"
#include "ops/wide.h"
#include "util/error.h"

namespace speedrun::ops {
namespace {

static_assert(longest_composition == cuda::raw::kMostComposedKeys);

bool has_rows_of_heads(const at::Tensor& x) {
    return x.stride(2) == 1 && (x.size(1) == 1 || x.stride(1) == x.size(2));
}

void check_like(const at::Tensor& x, const at::Tensor& q, const char* what) {
    check(x.sizes() == q.sizes() && x.scalar_type() == q.scalar_type() && x.device() == q.device() &&
              has_rows_of_heads(x),
          what);
}

void check_weights(const at::Tensor& w, const at::Tensor& q, const char* what) {
    const auto dtype = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    check(w.dim() == 2 && w.size(0) == q.size(0) && w.size(1) == q.size(1) && w.scalar_type() == dtype &&
              (w.size(1) == 1 || w.stride(1) == 1),
          what);
}

void check_composition(const Composition& in, const at::Tensor& y) {
    check(in.q.dim() == 3, "dynamic_composition: q is [T, H, D]");
    for (const at::Tensor* x : {&in.q, &in.k, &in.v, &y})
        check_like(*x, in.q, "dynamic_composition: q, k, v and y are [T, H, D] of one dtype, in rows");
    for (const at::Tensor* w : {&in.w1, &in.w2})
        check_weights(*w, in.q, "dynamic_composition: w1 and w2 are fp32 [T, H]");
    check(in.window >= 1, "dynamic_composition: a query sees itself");
    check(in.cu_seqlens.dim() == 1 && in.cu_seqlens.scalar_type() == at::kInt &&
              in.cu_seqlens.is_contiguous() && (in.q.is_meta() || in.cu_seqlens.device() == in.q.device()),
          "dynamic_composition: cu_seqlens are int32 [n] on q's device");
}

void check_gradients(const Composition& in, const CompositionGrads& grads) {
    for (const at::Tensor* x : {&grads.dq, &grads.dk, &grads.dv})
        check_like(*x, in.q, "dynamic_composition_backward: dq, dk and dv are as q");
    for (const at::Tensor* w : {&grads.dw1, &grads.dw2})
        check_weights(*w, in.q, "dynamic_composition_backward: dw1 and dw2 are as w1");
}

}  // namespace

void dynamic_composition(const Composition& in, const at::Tensor& y, const at::Tensor& out) {
    check_composition(in, y);
    check_like(out, in.q, "dynamic_composition: out is as q");
    if (in.q.numel() == 0 || in.q.is_meta()) return;
    if (cuda::fused(in.q)) return cuda::dynamic_composition(cuda::gpu_of(in.q), in, y, out);
    if (!cpu::fused(in.q)) return reference::dynamic_composition(in, y, out);
    cpu::compose_heads(in, y, out);
}

void dynamic_composition_backward(const Composition& in, const at::Tensor& dout,
                                  const CompositionGrads& grads) {
    check_composition(in, dout);
    check_gradients(in, grads);
    if (in.q.numel() == 0 || in.q.is_meta()) return;
    if (cuda::fused(in.q)) return cuda::dynamic_composition_backward(cuda::gpu_of(in.q), in, dout, grads);
    if (!cpu::fused(in.q)) return reference::dynamic_composition_backward(in, dout, grads);
    cpu::compose_heads_backward(in, dout, grads);
}

namespace {

// [T, H, D] -> [H, T, D]
at::Tensor by_head(const at::Tensor& x) {
    return reference::wide(x).transpose(0, 1);
}

// [T, H] -> [H, T, 1]
at::Tensor by_query(const at::Tensor& w) {
    return w.t().unsqueeze(2);
}

// bool [T, T]: whether query (row) sees key (column).
at::Tensor seen_keys(const Composition& in) {
    const at::Tensor at = at::arange(in.q.size(0), in.q.options().dtype(at::kLong));
    const at::Tensor document =
        at::searchsorted(in.cu_seqlens.to(at::kLong), at, /*out_int32=*/false, /*right=*/true);
    const at::Tensor query = at.unsqueeze(1), key = at.unsqueeze(0);
    return key.le(query) & key.gt(query - in.window) & document.unsqueeze(1).eq(document.unsqueeze(0));
}

// The parts of the formula: u and its factor [T, H] and [T, 1], the heads' attention [H, T, T], and A [T, T].
struct ComposedMap {
    explicit ComposedMap(const Composition& in)
        : rstd((in.w1.square().mean(-1, true) + composition_eps).rsqrt()),
          u(in.w1 * rstd),
          p((at::matmul(by_head(in.q), by_head(in.k).transpose(1, 2)) * in.scale)
                .masked_fill(seen_keys(in).logical_not(), -std::numeric_limits<double>::infinity())
                .softmax(-1)),
          map((by_query(u) * p).sum(0)) {}
    at::Tensor rstd, u, p, map;
};

void add_to(const at::Tensor& to, const at::Tensor& more) {
    to.copy_(reference::wide(to) + more);
}

}  // namespace

void reference::dynamic_composition(const Composition& in, const at::Tensor& y, const at::Tensor& out) {
    check_composition(in, y);
    const ComposedMap composed(in);
    const at::Tensor values = at::matmul(composed.map, by_head(in.v)).transpose(0, 1);
    out.copy_(wide(y) + in.w2.unsqueeze(2) * values);
}

// With G_h = dout_h v_h^T: dA = sum_h w2_h G_h, dw2_h = sum A G_h, dv_h = A^T (w2_h dout_h), du_h = sum dA
// P_h, dS_h = u_h P_h (dA - du_h), dw1 = rstd (du - u mean(u du)).
void reference::dynamic_composition_backward(const Composition& in, const at::Tensor& dout,
                                             const CompositionGrads& grads) {
    check_composition(in, dout);
    check_gradients(in, grads);
    const ComposedMap composed(in);
    const at::Tensor above = by_head(dout), w2 = by_query(in.w2);
    const at::Tensor products = at::matmul(above, by_head(in.v).transpose(1, 2));  // G
    const at::Tensor dmap = (w2 * products).sum(0);
    const at::Tensor du = (dmap * composed.p).sum(-1, true);  // [H, T, 1]
    const at::Tensor dscores = by_query(composed.u) * composed.p * (dmap - du) * in.scale;
    const at::Tensor dv = at::matmul(composed.map.t(), w2 * above).transpose(0, 1);
    add_to(grads.dw2, (composed.map * products).sum(-1).t());
    const at::Tensor du_rows = du.squeeze(2).t();
    add_to(grads.dw1, composed.rstd * (du_rows - composed.u * (composed.u * du_rows).mean(-1, true)));
    grads.dv.copy_(grads.accumulate ? wide(grads.dv) + dv : dv);
    grads.dq.copy_(at::matmul(dscores, by_head(in.k)).transpose(0, 1));
    grads.dk.copy_(at::matmul(dscores.transpose(1, 2), by_head(in.q)).transpose(0, 1));
}

namespace cuda {
namespace {

raw::Composition raw_composition(const Composition& in) {
    check(in.window <= longest_composition, "dynamic_composition: a longer window than the kernels hold");
    return {.q = rows(in.q, in.q.sizes(), "dynamic_composition: q"),
            .k = rows(in.k, in.q.sizes(), "dynamic_composition: k"),
            .v = rows(in.v, in.q.sizes(), "dynamic_composition: v"),
            .w1 = rows(in.w1, in.w1.sizes(), "dynamic_composition: w1"),
            .w2 = rows(in.w2, in.w2.sizes(), "dynamic_composition: w2"),
            .cu_seqlens = in.cu_seqlens.const_data_ptr<int32_t>(),
            .documents = in.cu_seqlens.size(0) - 1,
            .heads = in.q.size(1),
            .window = in.window,
            .scale = static_cast<float>(in.scale)};
}

}  // namespace

void dynamic_composition(const Gpu& gpu, const Composition& in, const at::Tensor& y, const at::Tensor& out) {
    check_composition(in, y);
    check_like(out, in.q, "dynamic_composition: out is as q");
    gpu.kernels.dynamic_composition(raw_composition(in), rows(y, y.sizes(), "dynamic_composition: y"),
                                    rows(out, y.sizes(), "dynamic_composition: out"), shape_of(in.q),
                                    gpu.stream);
}

void dynamic_composition_backward(const Gpu& gpu, const Composition& in, const at::Tensor& dout,
                                  const CompositionGrads& grads) {
    check_composition(in, dout);
    check_gradients(in, grads);
    const at::Tensor scratch = at::empty({3, in.q.size(0), in.q.size(1)}, in.q.options().dtype(at::kFloat));
    gpu.kernels.dynamic_composition_backward(
        raw_composition(in),
        {.dout = rows(dout, dout.sizes(), "dynamic_composition_backward: dout"),
         .dq = rows(grads.dq, dout.sizes(), "dynamic_composition_backward: dq"),
         .dk = rows(grads.dk, dout.sizes(), "dynamic_composition_backward: dk"),
         .dv = rows(grads.dv, dout.sizes(), "dynamic_composition_backward: dv"),
         .dw1 = rows(grads.dw1, in.w1.sizes(), "dynamic_composition_backward: dw1"),
         .dw2 = rows(grads.dw2, in.w2.sizes(), "dynamic_composition_backward: dw2"),
         .accumulate = grads.accumulate,
         .scratch = scratch.data_ptr<float>()},
        shape_of(in.q), gpu.stream);
}

}  // namespace cuda
}  // namespace speedrun::ops
