#pragma once
#include <cmath>
#include <numbers>
#include <vector>

#include "ops/attention/cpu/attention_work.h"
#include "ops/attention/cpu/composition_tile.h"
#include "ops/cpu/kernels.h"
#include "ops/cpu/rows.h"
#include "ops/dynamic_composition.h"

// What forward and backward of ops/dynamic_composition.h share: the keys in use, the weights of a block of
// queries, and its attention.
namespace speedrun::ops::cpu {

// One call, seen by all threads.
template <class T>
struct ComposedInput {
    explicit ComposedInput(const Composition& in)
        : q(in.q),
          k(in.k),
          v(in.v),
          w1(rows<const float>(in.w1, {in.q.size(0), in.q.size(1)}, "dynamic_composition: w1")),
          w2(rows<const float>(in.w2, {in.q.size(0), in.q.size(1)}, "dynamic_composition: w2")),
          heads(in.q.size(1)),
          width(in.q.size(2)),
          scale(static_cast<float>(in.scale)),
          plan({in.cu_seqlens, in.window - 1}, in.q.size(0), /*heads=*/1) {}

    Blocks<const T> q, k, v;
    Rows<const float> w1, w2;
    int64_t heads, width;
    float scale;
    AttentionPlan plan;  // its tasks have all heads
};

// A block's rows [kBlock, width], and their transpose, in fp32; rows that do not exist as zeros.
template <class T>
void widen_rows(const MatrixView<T>& block, float* to) {
    if (block.rows < kBlock) std::fill_n(to, kBlock * block.cols, 0.0F);
    pack_a(block, to, block.cols);
}
template <class T>
void widen_columns(const MatrixView<T>& block, float* to) {
    if (block.rows < kBlock) std::fill_n(to, kBlock * block.cols, 0.0F);
    pack_a(transposed(block), to, kBlock);
}
// A tile [kBlock, kBlock]
inline void transpose_tile(const float* tile, float* to) {
    pack_a(MatrixView<float>{tile, kBlock, kBlock, 1, kBlock}, to, kBlock);
}

// The buffers of one thread.
template <class T>
class ComposedBlock {
  public:
    explicit ComposedBlock(const ComposedInput<T>& in)
        : in_(in),
          area_(kBlock * in.width),
          keys_(in.plan.slots * in.heads * area_),
          values_(in.plan.slots * in.heads * area_),
          column_(area_),
          map_(in.plan.slots * kBlock * kBlock),
          w1_(in.heads * kBlock),
          w2_(in.heads * kBlock) {}

    // Of a head and block of keys, in memory for all blocks in use.
    int64_t slot(int64_t head, int64_t key) const {
        return (key % in_.plan.slots * in_.heads + head) * area_;
    }
    const float* keys(int64_t head, int64_t key) const { return keys_ + slot(head, key); }
    const float* values(int64_t head, int64_t key) const { return values_ + slot(head, key); }

    // Copied, because rows of the tensors lie a page or more apart.
    void enter_keys(int64_t key) {
        for (int64_t h = 0; h < in_.heads; ++h) {
            widen_rows(in_.k.matrix(h, key), keys_ + slot(h, key));
            widen_rows(in_.v.matrix(h, key), values_ + slot(h, key));
        }
    }

    // Before what follows: reads the weights, and which keys each query sees.
    void enter_queries(int64_t block) {
        block_ = block;
        range_ = in_.plan.keys[static_cast<size_t>(block)];
        masks_.clear();
        for (int64_t key = range_.begin; key < range_.end; ++key)
            masks_.push_back(pair_mask(in_.plan.first, block, key));
        const int64_t rows = in_.q.rows(block);
        std::fill_n(w1_.get(), in_.heads * kBlock, 0.0F);
        std::fill_n(w2_.get(), in_.heads * kBlock, 0.0F);
        for (int64_t i = 0; i < rows; ++i) enter_weights(i, in_.w1[first() + i], in_.w2[first() + i]);
        std::fill_n(map_.get(), strip_keys() * kBlock, 0.0F);
    }

    // The head's probabilities, a strip; they are added to the composed map.
    void attend(int64_t head, float* probabilities) {
        widen_columns(in_.q.matrix(head, block_), column_.get());
        multiply(keys_, head, probabilities);
        softmax_of_strip(probabilities, masks_, in_.scale * std::numbers::log2e_v<float>);
        add_strip(probabilities, w1(head), map_.get(), strip_keys());
    }

    // strip = values [keys, width] times the transpose of the head's rows of x
    void values_times(int64_t head, const Blocks<const T>& x, float* strip) {
        widen_columns(x.matrix(head, block_), column_.get());
        multiply(values_, head, strip);
    }

    const float* map() const { return map_.get(); }  // a strip, once all heads have attended
    const float* w1(int64_t head) const { return w1_ + head * kBlock; }  // normed
    const float* w2(int64_t head) const { return w2_ + head * kBlock; }
    float rstd(int64_t i) const { return rstd_[i]; }
    BlockRange range() const { return range_; }
    int64_t first() const { return block_ * kBlock; }
    int64_t strip_keys() const { return (range_.end - range_.begin) * kBlock; }
    int64_t tile(int64_t key) const { return (key - range_.begin) * kBlock * kBlock; }

  private:
    void enter_weights(int64_t i, const float* w1, const float* w2) {
        rstd_[i] = reciprocal_rms(w1, in_.heads, static_cast<float>(composition_eps));
        for (int64_t h = 0; h < in_.heads; ++h) {
            w1_.get()[h * kBlock + i] = w1[h] * rstd_[i];
            w2_.get()[h * kBlock + i] = w2[h];
        }
    }

    void multiply(const Scratch<float>& left, int64_t head, float* strip) {
        for (int64_t key = range_.begin; key < range_.end; ++key)
            brgemm(kBlock, kBlock, in_.width, left + slot(head, key), in_.width, column_.get(), kBlock,
                   strip + tile(key), kBlock, false);
    }

    const ComposedInput<T>& in_;
    int64_t area_, block_ = 0;
    BlockRange range_;
    std::vector<PairMask> masks_;
    Scratch<float> keys_, values_, column_, map_, w1_, w2_;
    float rstd_[kBlock] = {};
};

}  // namespace speedrun::ops::cpu
