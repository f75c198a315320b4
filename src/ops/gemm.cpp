#include "ops/gemm.h"

#include <ATen/ATen.h>

#include <vector>

#include "ops/cpu/brgemm.h"
#include "ops/cpu/gemm.h"
#include "ops/cuda/gram.h"
#include "util/error.h"

namespace speedrun::ops {

namespace {

using at::BFloat16;
using cpu::MatrixView;
using cpu::Output;

// The last two dimensions of matrix `i` of a batch (or of the matrix itself).
template <class T>
MatrixView<T> view(const at::Tensor& x, int64_t i = 0) {
    MatrixView<T> v{x.const_data_ptr<T>(), x.size(-2), x.size(-1), x.stride(-2), x.stride(-1)};
    if (x.dim() == 3) v.data += i * x.stride(0);
    if (v.cols == 1 && v.row_stride != 1) v.col_stride = 1;  // strides of dimensions of size 1 mean nothing
    if (v.rows == 1 && v.col_stride != 1) v.row_stride = 1;
    return v;
}

template <class C>
Output<C> output(const at::Tensor& c, int64_t i, float alpha, float beta, const at::Tensor& addend) {
    const auto at_matrix = [i](const at::Tensor& x) { return x.dim() == 3 ? i * x.stride(0) : 0; };
    Output<C> out{c.data_ptr<C>() + at_matrix(c), c.stride(-2), alpha, beta, nullptr, 0};
    if (beta != 0.0F) {
        out.addend = addend.const_data_ptr<C>() + at_matrix(addend);
        out.addend_stride = addend.stride(-2);
    }
    return out;
}

bool is_row_major(const at::Tensor& x) {
    return (x.size(-1) == 1 || x.stride(-1) == 1) && (x.size(-2) == 1 || x.stride(-2) >= x.size(-1));
}
bool is_matrix(const at::Tensor& x) {
    return x.size(-1) == 1 || x.size(-2) == 1 || x.stride(-1) == 1 || x.stride(-2) == 1;
}

void check_operands(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c, int64_t dim) {
    check(a.dim() == dim && b.dim() == dim && c.dim() == dim,
          "gemm: operands have the wrong number of dimensions");
    check(a.size(-1) == b.size(-2) && a.size(-2) == c.size(-2) && b.size(-1) == c.size(-1) &&
              (dim == 2 || (a.size(0) == b.size(0) && a.size(0) == c.size(0))),
          "gemm: the operands' shapes do not fit");
    check(a.scalar_type() == b.scalar_type() && a.device() == b.device() && a.device() == c.device(),
          "gemm: the operands' dtypes or devices differ");
    check(a.size(-1) > 0, "gemm: empty inner dimension");
    check(is_matrix(a) && is_matrix(b), "gemm: an operand has no stride of 1");
    check(is_row_major(c), "gemm: the output is not row-major");
    const bool bf16 = a.scalar_type() == at::kBFloat16;
    check(bf16 || a.scalar_type() == at::kFloat, "gemm: operands are neither fp32 nor bf16");
    check(c.scalar_type() == at::kFloat || (bf16 && c.scalar_type() == at::kBFloat16),
          "gemm: the output's dtype does not fit the operands'");
}

void aten_gemm(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c, bool accumulate) {
    at::Tensor out = c;
    if (a.scalar_type() == c.scalar_type()) {
        if (accumulate) {
            out.addmm_(a, b);
        } else {
            at::mm_out(out, a, b);
        }
        return;
    }
    // bf16 operands, fp32 result: the overloads that keep the fp32 sums
    if (accumulate) {
        at::addmm_out(out, out, a, b, at::kFloat);
    } else {
        at::mm_out(out, a, b, at::kFloat);
    }
}

template <class T>
void batched(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c, float alpha, float beta,
             const at::Tensor& addend, bool symmetric) {
    std::vector<cpu::Product<T, T>> products;
    for (int64_t i = 0; i < a.size(0); ++i) {
        Output<T> out = output<T>(c, i, alpha, beta, addend);
        out.symmetric = symmetric;
        products.push_back({view<T>(a, i), view<T>(b, i), out});
    }
    cpu::batched_gemm<T>(products);
}

void batched_any(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c, double alpha, double beta,
                 const at::Tensor& addend, bool symmetric) {
    check_operands(a, b, c, 3);
    check(a.scalar_type() == c.scalar_type(), "batched_gemm: the output's dtype differs from the operands'");
    check(beta == 0 || (addend.defined() && addend.sizes() == c.sizes() &&
                        addend.scalar_type() == c.scalar_type() && is_row_major(addend)),
          "batched_gemm: the addend does not look like the output");
    if (c.numel() == 0) return;
    if (!a.is_cpu()) {
        at::Tensor out = c;
        at::baddbmm_out(out, beta == 0 ? c : addend, a, b, beta, alpha);
    } else if (a.scalar_type() == at::kFloat) {
        batched<float>(a, b, c, static_cast<float>(alpha), static_cast<float>(beta), addend, symmetric);
    } else {
        batched<BFloat16>(a, b, c, static_cast<float>(alpha), static_cast<float>(beta), addend, symmetric);
    }
}

}  // namespace

void gemm(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c, bool accumulate) {
    check_operands(a, b, c, 2);
    if (c.numel() == 0 || c.is_meta()) return;
    const float beta = accumulate ? 1.0F : 0.0F;
    if (!a.is_cpu()) {
        aten_gemm(a, b, c, accumulate);
    } else if (a.scalar_type() == at::kFloat) {
        cpu::gemm<float, float>({view<float>(a), view<float>(b), output<float>(c, 0, 1, beta, c)});
    } else if (c.scalar_type() == at::kFloat) {
        cpu::gemm<BFloat16, float>({view<BFloat16>(a), view<BFloat16>(b), output<float>(c, 0, 1, beta, c)});
    } else {
        cpu::gemm<BFloat16, BFloat16>(
            {view<BFloat16>(a), view<BFloat16>(b), output<BFloat16>(c, 0, 1, beta, c)});
    }
}

void batched_gemm(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c, double alpha, double beta,
                  const at::Tensor& addend) {
    batched_any(a, b, c, alpha, beta, addend, /*symmetric=*/false);
}

void batched_gram(const at::Tensor& x, const at::Tensor& c, double alpha, double beta,
                  const at::Tensor& addend) {
    check(x.dim() == 3, "batched_gram: x is not [n, rows, cols]");
    if (x.is_cuda() && cuda::takes_gram(x) && c.numel() > 0) {
        cuda::gram(cuda::gpu_of(x), x, c, alpha, beta, addend);
    } else {
        batched_any(x, x.mT(), c, alpha, beta, addend, /*symmetric=*/true);
    }
}

std::string gemm_backend(at::ScalarType dtype) {
    const bool bf16 = dtype == at::kBFloat16, widened = bf16 && !cpu::has_bf16_brgemm();
    const char* instructions = "AVX2";
    if (__builtin_cpu_supports("avx512f")) instructions = "AVX-512";
    if (bf16 && !widened) instructions = __builtin_cpu_supports("amx-bf16") ? "AMX" : "AVX512-BF16";
    return std::string("oneDNN brgemm (") + instructions + (widened ? ", bf16 widened to fp32)" : ")");
}

}  // namespace speedrun::ops
