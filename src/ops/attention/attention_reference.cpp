#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/where.h>

#include <limits>

#include "ops/attention/attention.h"

namespace speedrun::ops {
namespace {

// [T, H, D] -> [H, T, D] in the dtype computed with
at::Tensor heads_first(const at::Tensor& x) {
    return x.to(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat).transpose(0, 1);
}

void write(const at::Tensor& to, const at::Tensor& heads_first) {
    to.copy_(heads_first.transpose(0, 1));
}

// bool [T, T]: whether query (row) sees key (column)
at::Tensor dense_mask(const AttentionMask& mask, const at::Tensor& q) {
    const at::Tensor at = at::arange(q.size(0), q.options().dtype(at::kLong));
    const at::Tensor starts = mask.cu_seqlens.to(q.device(), at::kLong);
    const at::Tensor document = at::searchsorted(starts, at, /*out_int32=*/false, /*right=*/true);
    const at::Tensor query = at.unsqueeze(1), key = at.unsqueeze(0);
    return key.le(query) & key.ge(query - mask.window) & document.unsqueeze(1).eq(document.unsqueeze(0));
}

// [H, T, T]: scale * q.k, -inf where the mask says no
at::Tensor masked_scores(const at::Tensor& q, const at::Tensor& k, const AttentionMask& mask, double scale) {
    const at::Tensor scores = at::matmul(heads_first(q), heads_first(k).transpose(1, 2)) * scale;
    return scores.masked_fill(dense_mask(mask, q).logical_not(), -std::numeric_limits<double>::infinity());
}

}  // namespace

void attention_forward_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 const AttentionMask& mask, double scale, const at::Tensor& out,
                                 const at::Tensor& lse) {
    const at::Tensor scores = masked_scores(q, k, mask, scale);
    lse.copy_(scores.logsumexp(-1));
    write(out, at::matmul(scores.softmax(-1), heads_first(v)));
}

// With P = softmax(S), S = scale q k^T: dv = P^T dout, dP = dout v^T, dS = P * (dP - sum(P * dP)).
void attention_backward_reference(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                                  const at::Tensor& v, const at::Tensor&, const at::Tensor&,
                                  const AttentionMask& mask, double scale, const at::Tensor& dq,
                                  const at::Tensor& dk, const at::Tensor& dv) {
    const at::Tensor p = masked_scores(q, k, mask, scale).softmax(-1);
    const at::Tensor grad = heads_first(dout);
    const at::Tensor dp = at::matmul(grad, heads_first(v).transpose(1, 2));
    const at::Tensor ds = p * (dp - (p * dp).sum(-1, /*keepdim=*/true)) * scale;
    write(dv, at::matmul(p.transpose(1, 2), grad));
    write(dq, at::matmul(ds, heads_first(k)));
    write(dk, at::matmul(ds.transpose(1, 2), heads_first(q)));
}

}  // namespace speedrun::ops
