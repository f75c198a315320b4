#include "ops/cpu/gemm.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <type_traits>

#include "ops/cpu/bf16.h"
#include "ops/cpu/workspace.h"

namespace speedrun::ops::cpu {
namespace {

constexpr int64_t tile_rows = 128;           // of c
constexpr int64_t tile_cols = 64;            // of c: 256 rows of packed b stay in L1
constexpr int64_t tile_depth = 512;          // of K in one micro-kernel call
constexpr int64_t panel_elements = 1 << 23;  // of one packed operand, at most (or one tile)
constexpr double serial_flop = 2e6;          // below, starting threads costs more than it saves

// Whether brgemm can add into c itself.
template <class C>
bool direct(const Output<C>& out) {
    return std::is_same_v<C, float> && out.alpha == 1.0F &&
           (out.beta == 0.0F || (out.beta == 1.0F && out.addend == out.c));
}

int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

template <class F>
void for_each(int64_t count, bool parallel, const F& f) {
    at::parallel_for(0, count, parallel ? 1 : count, [&](int64_t begin, int64_t end) {
        const BrgemmScope scope;
        for (int64_t i = begin; i < end; ++i) f(i);
    });
}

// One panel of c: columns and rows whose packed operands, of type P, fit in the workspaces. `below`: how far
// c's first element lies below the diagonal of the whole.
template <class T, class P, class C>
class Panel {
  public:
    Panel(const MatrixView<T>& a, const MatrixView<T>& b, const Output<C>& out, int64_t below, bool parallel)
        : a_(a), b_(b), out_(out), below_(below), parallel_(parallel), depth_(padded_k<P>(a.cols)) {}

    void run() {
        pack();
        const int64_t rows = rows_of_tile();
        const int64_t row_tiles = ceil_div(a_.rows, rows), col_tiles = ceil_div(b_.cols, tile_cols);
        for_each(row_tiles * col_tiles, parallel_, [&](int64_t i) {
            const int64_t row = i % row_tiles * rows, col = i / row_tiles * tile_cols;
            const int64_t cols = std::min(tile_cols, b_.cols - col);
            if (out_.symmetric && below_ + row >= col + cols) return;  // mirrored after
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
        thread_local Workspace a_memory, b_memory;
        packed_b_ = b_memory.get<P>(static_cast<size_t>(depth_ * b_.cols));
        for_each(ceil_div(b_.cols, tile_cols), parallel_, [&](int64_t i) {
            const int64_t col = i * tile_cols, cols = std::min(tile_cols, b_.cols - col);
            pack_b(b_.block(0, col, b_.rows, cols), packed_b_ + depth_ * col, cols);
        });
        if constexpr (std::is_same_v<T, P>) {
            left_ = a_.data;
            left_stride_ = a_.row_stride;
            if (a_.col_stride == 1 && a_.row_stride >= a_.cols && depth_ == a_.cols) return;
        }
        P* const packed = a_memory.get<P>(static_cast<size_t>(depth_ * a_.rows));
        left_ = packed;
        left_stride_ = depth_;
        constexpr int64_t rows = 64;
        for_each(ceil_div(a_.rows, rows), parallel_, [&](int64_t i) {
            const int64_t row = i * rows;
            pack_a(a_.block(row, 0, std::min(rows, a_.rows - row), a_.cols), packed + row * depth_, depth_);
        });
    }

    void tile(int64_t row, int64_t rows, int64_t col, int64_t cols) const {
        alignas(64) thread_local float buffer[tile_rows * tile_cols];
        float* target = buffer;
        int64_t stride = cols;
        bool add = false;
        if constexpr (std::is_same_v<C, float>) {
            if (direct(out_)) {
                target = out_.c + row * out_.row_stride + col;
                stride = out_.row_stride;
                add = out_.beta != 0.0F;
            }
        }
        for (int64_t k = 0; k < depth_; k += tile_depth) {
            brgemm(rows, cols, std::min(tile_depth, depth_ - k), left_ + row * left_stride_ + k, left_stride_,
                   packed_b_ + depth_ * col + k * cols, cols, target, stride, add || k > 0);
        }
        if (target == buffer) finish(buffer, row, rows, col, cols);
    }

    void finish(const float* product, int64_t row, int64_t rows, int64_t col, int64_t cols) const {
        for (int64_t i = 0; i < rows; ++i) {
            C* c = out_.c + (row + i) * out_.row_stride + col;
            const float* p = product + i * cols;
            if (out_.beta == 0.0F) {
                for (int64_t j = 0; j < cols; ++j) c[j] = narrow<C>(out_.alpha * p[j]);
            } else {
                const C* addend = out_.addend + (row + i) * out_.addend_stride + col;
#pragma GCC ivdep  // addend may be c, but then element by element
                for (int64_t j = 0; j < cols; ++j) {
                    c[j] = narrow<C>(out_.alpha * p[j] + out_.beta * static_cast<float>(addend[j]));
                }
            }
        }
    }

    MatrixView<T> a_, b_;
    Output<C> out_;
    int64_t below_;
    bool parallel_;
    int64_t depth_;
    P* packed_b_ = nullptr;
    const P* left_ = nullptr;
    int64_t left_stride_ = 0;
};

// Rows and columns of a panel of an output of any size.
struct PanelShape {
    explicit PanelShape(int64_t depth)
        : rows(std::max(tile_rows, panel_elements / depth / tile_rows * tile_rows)),
          cols(std::max(tile_cols, panel_elements / depth / tile_cols * tile_cols)) {}
    int64_t rows, cols;
};

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

template <class T, class P, class C>
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
            Panel<T, P, C>(a.block(row, 0, std::min(rows, a.rows - row), a.cols),
                           b.block(0, col, b.rows, std::min(cols, b.cols - col)), part, row - col, parallel)
                .run();
        }
    }
}

// Bytes of a packed element.
size_t packed_item(size_t item) {
    return has_bf16_brgemm() ? item : sizeof(float);
}

}  // namespace

template <class T, class C>
void gemm(const Product<T, C>& product) {
    Output<C> out = product.out;
    const int64_t n = product.b.cols;
    out.symmetric = out.symmetric && n > tile_rows;  // one row of tiles leaves nothing out
    if (packed_item(sizeof(T)) == sizeof(T))
        multiply<T, T, C>(product.a, product.b, out);
    else
        multiply<T, float, C>(product.a, product.b, out);
    if (out.symmetric) mirror(out.c, n, out.row_stride);
}
template void gemm(const Product<float, float>&);
template void gemm(const Product<at::BFloat16, float>&);
template void gemm(const Product<at::BFloat16, at::BFloat16>&);

template <class T>
void batched_gemm(std::span<const Product<T, T>> products) {
    const int64_t count = std::ssize(products), whole = count - count % at::get_num_threads();
    const auto one = [&](int64_t i) { gemm(products[static_cast<size_t>(i)]); };
    for_each(whole, true, one);
    for (int64_t i = whole; i < count; ++i) one(i);
}
template void batched_gemm(std::span<const Product<float, float>>);
template void batched_gemm(std::span<const Product<at::BFloat16, at::BFloat16>>);

GemmScratch gemm_scratch(int64_t rows, int64_t depth, int64_t cols, int64_t item, LeftOperand left) {
    const PanelShape panel(depth);
    const auto packed = static_cast<int64_t>(packed_item(static_cast<size_t>(item)));
    const bool in_place = left == LeftOperand::row_major && packed == item;
    return {in_place ? 0 : packed * depth * std::min(rows, panel.rows),
            packed * depth * std::min(cols, panel.cols)};
}

}  // namespace speedrun::ops::cpu
