// Ops that ATen has for GPUs alone, or for CPUs too slowly, written by their definitions.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <limits>
#include <tuple>

namespace speedrun::fake_gpu {
namespace {

using at::Tensor;
using MaybeTensor = std::optional<Tensor>;
using Size = c10::SymInt;  // by value, as the registered signatures have it

Tensor& mm_with_dtype(const Tensor& a, const Tensor& b, at::ScalarType, Tensor& out) {
    return out.copy_(a.to(at::kFloat).mm(b.to(at::kFloat)));
}
Tensor& addmm_with_dtype(const Tensor& addend, const Tensor& a, const Tensor& b, at::ScalarType,
                         const at::Scalar& beta, const at::Scalar& alpha, Tensor& out) {
    return out.copy_(addend.addmm(a.to(at::kFloat), b.to(at::kFloat), beta, alpha));
}

// A CPU has this one, but where its processor does not multiply 8-bit floats it takes a minute a step.
Tensor scaled_product(const Tensor& a, const Tensor& b, const Tensor& scale_a, const Tensor& scale_b) {
    return a.to(at::kFloat).mm(b.to(at::kFloat)).mul_(scale_a * scale_b);
}
Tensor scaled_mm(const Tensor& a, const Tensor& b, const Tensor& scale_a, const Tensor& scale_b,
                 const MaybeTensor&, const MaybeTensor&, std::optional<at::ScalarType> dtype, bool) {
    return scaled_product(a, b, scale_a, scale_b).to(*dtype);
}
Tensor& scaled_mm_out(const Tensor& a, const Tensor& b, const Tensor& scale_a, const Tensor& scale_b,
                      const MaybeTensor&, const MaybeTensor&, std::optional<at::ScalarType>, bool,
                      Tensor& out) {
    return out.copy_(scaled_product(a, b, scale_a, scale_b));
}

// [T, H, D] on the GPU as fp32 [H, T, D] on the host.
Tensor heads(const Tensor& x) {
    return x.cpu().to(at::kFloat).transpose(0, 1);
}

// [T, T]: whether query t sees key s.
Tensor visible(const Tensor& starts, int64_t tokens, int64_t window) {
    const Tensor at = at::arange(tokens, at::kLong);
    const Tensor document =
        at::searchsorted(starts.cpu().to(at::kLong), at, /*out_int32=*/false, /*right=*/true);
    const Tensor distance = at.unsqueeze(1) - at.unsqueeze(0);
    return document.unsqueeze(1)
        .eq(document.unsqueeze(0))
        .logical_and(distance.ge(0))
        .logical_and(distance.le(window));
}

Tensor logits(const Tensor& q, const Tensor& k, const MaybeTensor& starts, double scale, const Size& window) {
    const Tensor all = at::matmul(heads(q), heads(k).transpose(1, 2)) * scale;
    return all.masked_fill(visible(*starts, q.size(0), window.expect_int()).logical_not(),
                           -std::numeric_limits<float>::infinity());
}

Tensor like(const Tensor& x, const Tensor& of_heads) {
    return of_heads.transpose(0, 1).contiguous().to(x.scalar_type()).to(x.device());
}

void check_on_gpu(std::initializer_list<Tensor> tensors) {
    for (const Tensor& tensor : tensors)
        TORCH_CHECK(tensor.is_cuda(), "flash attention: a tensor of the host");
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> flash_attention(
    const Tensor& q, const Tensor& k, const Tensor& v, const MaybeTensor& starts, const MaybeTensor&, Size,
    Size, double, bool, bool, std::optional<double> scale, std::optional<Size> window, std::optional<Size>,
    const MaybeTensor&, const MaybeTensor&) {
    check_on_gpu({q, k, v, *starts});
    const Tensor s = logits(q, k, starts, *scale, *window);
    const Tensor lse = at::logsumexp(s, -1).to(q.device());
    return {like(q, at::matmul(at::softmax(s, -1), heads(v))), lse, Tensor(), Tensor(), Tensor()};
}

std::tuple<Tensor, Tensor, Tensor> flash_attention_backward(
    const Tensor& dout, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
    const Tensor& lse, const Tensor& starts, const Tensor&, Size, Size, double, bool, const Tensor&,
    const Tensor&, std::optional<double> scale, std::optional<Size> window, std::optional<Size>) {
    check_on_gpu({dout, q, k, v, out, lse, starts});
    const Tensor p = at::softmax(logits(q, k, starts, *scale, *window), -1);
    const Tensor dp = at::matmul(heads(dout), heads(v).transpose(1, 2));
    const Tensor ds = p * (dp - (dp * p).sum(-1, /*keepdim=*/true)) * *scale;
    return {like(q, at::matmul(ds, heads(k))), like(k, at::matmul(ds.transpose(1, 2), heads(q))),
            like(v, at::matmul(p.transpose(1, 2), heads(dout)))};
}

TORCH_LIBRARY_IMPL(aten, CUDA, library) {
    library.impl("mm.dtype_out", &mm_with_dtype);
    library.impl("addmm.dtype_out", &addmm_with_dtype);
    library.impl("_scaled_mm", &scaled_mm);
    library.impl("_scaled_mm.out", &scaled_mm_out);
    library.impl("_flash_attention_forward", &flash_attention);
    library.impl("_flash_attention_backward", &flash_attention_backward);
}

}  // namespace
}  // namespace speedrun::fake_gpu
