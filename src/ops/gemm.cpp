#include "ops/gemm.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <type_traits>

#include "ops/cpu/bf16.h"
#include "ops/cpu/brgemm.h"
#include "ops/cpu/workspace.h"
#include "ops/cuda/fused.h"
#include "util/error.h"

namespace speedrun::ops {

namespace {

using at::BFloat16;
using cpu::MatrixView;
using cpu::padded_k;

constexpr int64_t tile_rows = 128;           // of c
constexpr int64_t tile_cols = 64;            // of c: 256 rows of packed b stay in L1
constexpr int64_t tile_depth = 512;          // of K in one micro-kernel call
constexpr int64_t panel_elements = 1 << 23;  // of one packed operand, at most (or one tile)
constexpr double serial_flop = 2e6;          // below, starting threads costs more than it saves

// c = alpha * product + beta * addend
template <class C>
struct Output {
    C* c;
    int64_t row_stride;
    float alpha, beta;
    const C* addend;
    int64_t addend_stride;
    // A symmetric c: tiles below the diagonal are left out here, and mirrored after. `below` is how far c's
    // first element lies below the diagonal of the whole.
    bool symmetric = false;
    int64_t below = 0;

    // Whether brgemm can add into c itself.
    bool direct() const {
        return std::is_same_v<C, float> && alpha == 1.0F && (beta == 0.0F || (beta == 1.0F && addend == c));
    }
};

int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

template <class F>
void for_each(int64_t count, bool parallel, const F& f) {
    at::parallel_for(0, count, parallel ? 1 : count, [&](int64_t begin, int64_t end) {
        const cpu::BrgemmScope scope;
        for (int64_t i = begin; i < end; ++i) f(i);
    });
}

// One panel of c: columns and rows whose packed operands fit in the workspaces.
template <class T, class C>
class Panel {
  public:
    Panel(const MatrixView<T>& a, const MatrixView<T>& b, const Output<C>& out, bool parallel)
        : a_(a), b_(b), out_(out), parallel_(parallel), depth_(padded_k<T>(a.cols)) {}

    void run() {
        pack();
        const int64_t rows = rows_of_tile();
        const int64_t row_tiles = ceil_div(a_.rows, rows), col_tiles = ceil_div(b_.cols, tile_cols);
        for_each(row_tiles * col_tiles, parallel_, [&](int64_t i) {
            const int64_t row = i % row_tiles * rows, col = i / row_tiles * tile_cols;
            const int64_t cols = std::min(tile_cols, b_.cols - col);
            if (out_.symmetric && out_.below + row >= col + cols) return;
            tile(row, std::min(rows, a_.rows - row), col, cols);
        });
    }

  private:
    int64_t rows_of_tile() const {
        const int64_t wanted = parallel_ ? 2 * at::get_num_threads() : 1;
        int64_t rows = tile_rows;
        while (rows > 32 && ceil_div(a_.rows, rows) * ceil_div(b_.cols, tile_cols) < wanted) rows /= 2;
        return rows;
    }

    void pack() {
        thread_local cpu::Workspace a_memory, b_memory;
        packed_b_ = b_memory.get<T>(static_cast<size_t>(depth_ * b_.cols));
        for_each(ceil_div(b_.cols, tile_cols), parallel_, [&](int64_t i) {
            const int64_t col = i * tile_cols, cols = std::min(tile_cols, b_.cols - col);
            cpu::pack_b(b_.block(0, col, b_.rows, cols), packed_b_ + depth_ * col, cols);
        });
        left_ = a_.data;
        left_stride_ = a_.row_stride;
        if (a_.col_stride == 1 && a_.row_stride >= a_.cols && depth_ == a_.cols) return;
        T* const packed = a_memory.get<T>(static_cast<size_t>(depth_ * a_.rows));
        left_ = packed;
        left_stride_ = depth_;
        constexpr int64_t rows = 64;
        for_each(ceil_div(a_.rows, rows), parallel_, [&](int64_t i) {
            const int64_t row = i * rows;
            cpu::pack_a(a_.block(row, 0, std::min(rows, a_.rows - row), a_.cols), packed + row * depth_,
                        depth_);
        });
    }

    void tile(int64_t row, int64_t rows, int64_t col, int64_t cols) const {
        alignas(64) thread_local float buffer[tile_rows * tile_cols];
        float* target = buffer;
        int64_t stride = cols;
        bool add = false;
        if constexpr (std::is_same_v<C, float>) {
            if (out_.direct()) {
                target = out_.c + row * out_.row_stride + col;
                stride = out_.row_stride;
                add = out_.beta != 0.0F;
            }
        }
        for (int64_t k = 0; k < depth_; k += tile_depth) {
            cpu::brgemm(rows, cols, std::min(tile_depth, depth_ - k), left_ + row * left_stride_ + k,
                        left_stride_, packed_b_ + depth_ * col + k * cols, cols, target, stride,
                        add || k > 0);
        }
        if (target == buffer) finish(buffer, row, rows, col, cols);
    }

    void finish(const float* product, int64_t row, int64_t rows, int64_t col, int64_t cols) const {
        for (int64_t i = 0; i < rows; ++i) {
            C* c = out_.c + (row + i) * out_.row_stride + col;
            const float* p = product + i * cols;
            if (out_.beta == 0.0F) {
                for (int64_t j = 0; j < cols; ++j) c[j] = cpu::narrow<C>(out_.alpha * p[j]);
            } else {
                const C* addend = out_.addend + (row + i) * out_.addend_stride + col;
#pragma GCC ivdep  // addend may be c, but then element by element
                for (int64_t j = 0; j < cols; ++j) {
                    c[j] = cpu::narrow<C>(out_.alpha * p[j] + out_.beta * static_cast<float>(addend[j]));
                }
            }
        }
    }

    MatrixView<T> a_, b_;
    Output<C> out_;
    bool parallel_;
    int64_t depth_;
    T* packed_b_ = nullptr;
    const T* left_ = nullptr;
    int64_t left_stride_ = 0;
};

// Rows and columns of a panel of an output of any size.
struct PanelShape {
    explicit PanelShape(int64_t depth)
        : rows(std::max(tile_rows, panel_elements / depth / tile_rows * tile_rows)),
          cols(std::max(tile_cols, panel_elements / depth / tile_cols * tile_cols)) {}
    int64_t rows, cols;
};

template <class T, class C>
void multiply(const MatrixView<T>& a, const MatrixView<T>& b, const Output<C>& out) {
    const bool parallel =
        2.0 * static_cast<double>(a.rows) * static_cast<double>(a.cols) * static_cast<double>(b.cols) >
        serial_flop;
    const auto [rows, cols] = PanelShape(a.cols);
    for (int64_t row = 0; row < a.rows; row += rows) {
        for (int64_t col = 0; col < b.cols; col += cols) {
            Output<C> part = out;
            part.c += row * out.row_stride + col;
            if (out.addend != nullptr) part.addend += row * out.addend_stride + col;
            part.below = row - col;
            Panel<T, C>(a.block(row, 0, std::min(rows, a.rows - row), a.cols),
                        b.block(0, col, b.rows, std::min(cols, b.cols - col)), part, parallel)
                .run();
        }
    }
}

// Elements below the diagonal of c [n, n] become those above it. Those of tiles that were computed on both
// sides are equal already: a product of two numbers and its sum over k do not depend on which side is which.
template <class C>
void mirror(C* c, int64_t n, int64_t stride) {
    constexpr int64_t block = 64;
    for_each(ceil_div(n, block), n > 4 * block, [&](int64_t number) {
        const int64_t first = number * block, last = std::min(first + block, n);
        for (int64_t col = 0; col < last; col += block)
            for (int64_t i = first; i < last; ++i)
                for (int64_t j = col; j < std::min(col + block, i); ++j)
                    c[i * stride + j] = c[j * stride + i];
    });
}

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

bool has_fast_path(const at::Tensor& a) {
    return a.device().is_cpu() && (a.scalar_type() == at::kFloat || cpu::has_bf16_brgemm());
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
    // bf16 operands, fp32 result: only the CUDA overload keeps the fp32 sums
    const at::Tensor product =
        a.is_cuda() ? at::mm(a, b, at::kFloat) : at::mm(a.to(at::kFloat), b.to(at::kFloat));
    if (accumulate) {
        out.add_(product);
    } else {
        out.copy_(product);
    }
}

template <class T>
void batched(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c, float alpha, float beta,
             const at::Tensor& addend, bool symmetric) {
    const auto one = [&](int64_t i) {
        Output<T> out = output<T>(c, i, alpha, beta, addend);
        out.symmetric = symmetric && c.size(-1) > tile_rows;  // one row of tiles leaves nothing out
        multiply<T, T>(view<T>(a, i), view<T>(b, i), out);
        if (out.symmetric) mirror(out.c, c.size(-1), out.row_stride);
    };
    // A thread a matrix, and all threads on each of the last ones, which do not fill a round.
    const int64_t count = a.size(0), whole = count - count % at::get_num_threads();
    for_each(whole, true, one);
    for (int64_t i = whole; i < count; ++i) one(i);
}

}  // namespace

void gemm(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c, bool accumulate) {
    check_operands(a, b, c, 2);
    if (c.numel() == 0 || c.is_meta()) return;
    const float beta = accumulate ? 1.0F : 0.0F;
    if (!has_fast_path(a)) {
        aten_gemm(a, b, c, accumulate);
    } else if (a.scalar_type() == at::kFloat) {
        multiply(view<float>(a), view<float>(b), output<float>(c, 0, 1, beta, c));
    } else if (c.scalar_type() == at::kFloat) {
        multiply(view<BFloat16>(a), view<BFloat16>(b), output<float>(c, 0, 1, beta, c));
    } else {
        multiply(view<BFloat16>(a), view<BFloat16>(b), output<BFloat16>(c, 0, 1, beta, c));
    }
}

namespace {

void batched_any(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c, double alpha, double beta,
                 const at::Tensor& addend, bool symmetric) {
    check_operands(a, b, c, 3);
    check(a.scalar_type() == c.scalar_type(), "batched_gemm: the output's dtype differs from the operands'");
    check(beta == 0 || (addend.defined() && addend.sizes() == c.sizes() &&
                        addend.scalar_type() == c.scalar_type() && is_row_major(addend)),
          "batched_gemm: the addend does not look like the output");
    if (c.numel() == 0) return;
    if (!has_fast_path(a)) {
        at::Tensor out = c;
        at::baddbmm_out(out, beta == 0 ? c : addend, a, b, beta, alpha);
    } else if (a.scalar_type() == at::kFloat) {
        batched<float>(a, b, c, static_cast<float>(alpha), static_cast<float>(beta), addend, symmetric);
    } else {
        batched<BFloat16>(a, b, c, static_cast<float>(alpha), static_cast<float>(beta), addend, symmetric);
    }
}

}  // namespace

void batched_gemm(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c, double alpha, double beta,
                  const at::Tensor& addend) {
    batched_any(a, b, c, alpha, beta, addend, /*symmetric=*/false);
}

void batched_gram(const at::Tensor& x, const at::Tensor& c, double alpha, double beta,
                  const at::Tensor& addend) {
    check(x.dim() == 3, "batched_gram: x is not [n, rows, cols]");
    if (x.is_cuda() && cuda::takes_gram(x) && c.numel() > 0) {
        cuda::on_device_of(x).gram(x, c, alpha, beta, addend);
    } else {
        batched_any(x, x.mT(), c, alpha, beta, addend, /*symmetric=*/true);
    }
}

GemmScratch gemm_scratch(int64_t rows, int64_t depth, int64_t cols, int64_t item) {
    const PanelShape panel(depth);
    return {depth * std::min(rows, panel.rows) * item, depth * std::min(cols, panel.cols) * item};
}

std::string gemm_backend(at::ScalarType dtype) {
    if (dtype == at::kBFloat16 && !cpu::has_bf16_brgemm()) return "ATen matmul (no AVX512-BF16)";
    const char* instructions = "AVX2";
    if (__builtin_cpu_supports("avx512f")) instructions = "AVX-512";
    if (dtype == at::kBFloat16) instructions = "AVX512-BF16";
    if (dtype == at::kBFloat16 && __builtin_cpu_supports("amx-bf16")) instructions = "AMX";
    return std::string("oneDNN brgemm (") + instructions + ")";
}

}  // namespace speedrun::ops
