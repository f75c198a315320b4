#pragma once
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "ops/attention/attention.h"
#include "ops/attention/cpu/attention_plan.h"
#include "ops/cpu/brgemm.h"
#include "ops/cpu/workspace.h"

// What the forward and the backward pass over blocks share.
namespace speedrun::ops::cpu {

// A tensor [T, H, D] seen as blocks of kBlock tokens of one head; the last block may have fewer.
template <class T>
struct Blocks {
    explicit Blocks(const at::Tensor& x)
        : start(static_cast<T*>(x.data_ptr())),
          tokens(x.size(0)),
          width(x.size(2)),
          stride(x.stride(0)),
          head_stride(x.stride(1)) {}

    T* operator()(int64_t head, int64_t block) const {
        return start + head * head_stride + block * kBlock * stride;
    }
    int64_t rows(int64_t block) const { return std::min(kBlock, tokens - block * kBlock); }
    MatrixView<std::remove_const_t<T>> matrix(int64_t head, int64_t block) const {
        return {(*this)(head, block), rows(block), width, stride, 1};
    }

    T* start;
    int64_t tokens, width, stride, head_stride;
};

// Copies of a block [rows <= kBlock, width] in the orders that brgemm reads, rows that do not exist as zeros.
template <class T>
void clear_tail(const MatrixView<T>& block, T* to) {
    if (block.rows < kBlock) std::fill_n(to, kBlock * block.cols, T(0.0F));
}
template <class T>
MatrixView<T> transposed(const MatrixView<T>& m) {
    return {m.data, m.cols, m.rows, m.col_stride, m.row_stride};
}
// Left operand [M = kBlock, K = width]
template <class T>
void pack_left(const MatrixView<T>& block, T* to) {
    clear_tail(block, to);
    pack_a(block, to, block.cols);
}
// Left operand [M = width, K = kBlock]
template <class T>
void pack_left_transposed(const MatrixView<T>& block, T* to) {
    clear_tail(block, to);
    pack_a(transposed(block), to, kBlock);
}
// Right operand [K = kBlock, N = width]
template <class T>
void pack_right(const MatrixView<T>& block, T* to) {
    clear_tail(block, to);
    pack_b(block, to, block.cols);
}
// Right operand [K = width, N = kBlock]
template <class T>
void pack_right_transposed(const MatrixView<T>& block, T* to) {
    clear_tail(block, to);
    pack_b(transposed(block), to, kBlock);
}

// Uninitialised buffer of one thread.
template <class T>
class Scratch {
  public:
    explicit Scratch(int64_t count) : data_(memory_.get<T>(static_cast<size_t>(count))) {}
    T* get() const { return data_; }
    T* operator+(int64_t offset) const { return data_ + offset; }

  private:
    Workspace memory_;
    T* data_;
};

// One call of attention: which keys each query sees, and the tasks.
struct AttentionPlan {
    AttentionPlan(const AttentionMask& mask, int64_t tokens, int64_t heads)
        : first(first_keys(
              {mask.cu_seqlens.const_data_ptr<int32_t>(), static_cast<size_t>(mask.cu_seqlens.numel())},
              tokens, mask.window)),
          keys(key_blocks(first)),
          slots(widest(keys)),
          tasks(attention_tasks(keys, heads)) {}

    std::vector<int32_t> first;
    std::vector<BlockRange> keys;
    int64_t slots;  // blocks of keys that are in use at a time
    std::vector<AttentionTask> tasks;
};

// Runs worker.run(task) for every task, each thread with a worker of its own that `make` returns.
template <class Make>
void run_tasks(std::span<const AttentionTask> tasks, const Make& make) {
    const auto count = static_cast<int64_t>(tasks.size());
    std::atomic<int64_t> next = 0;
    at::parallel_for(0, std::min<int64_t>(count, at::get_num_threads()), 1, [&](int64_t, int64_t) {
        const BrgemmScope scope;
        auto worker = make();
        for (int64_t i = next++; i < count; i = next++) worker.run(tasks[static_cast<size_t>(i)]);
    });
}

}  // namespace speedrun::ops::cpu
