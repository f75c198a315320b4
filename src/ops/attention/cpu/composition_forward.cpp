#include "ops/attention/cpu/composed_block.h"
#include "ops/attention/cpu/composition.h"
#include "ops/cpu/convert.h"

namespace speedrun::ops::cpu {
namespace {

template <class T>
class ComposedForward {
  public:
    ComposedForward(const ComposedInput<T>& in, const Blocks<const T>& y, const Blocks<T>& out)
        : in_(in),
          y_(y),
          out_(out),
          block_(in),
          strip_(in.plan.slots * kBlock * kBlock),
          map_(in.plan.slots * kBlock * kBlock),
          rows_(kBlock * in.width) {}

    void run(const AttentionTask& task) {
        int64_t entered = in_.plan.keys[static_cast<size_t>(task.blocks.begin)].begin;
        for (int64_t block = task.blocks.begin; block < task.blocks.end; ++block) {
            for (; entered <= block; ++entered) block_.enter_keys(entered);
            query_block(block);
        }
    }

  private:
    void query_block(int64_t block) {
        block_.enter_queries(block);
        for (int64_t h = 0; h < in_.heads; ++h) block_.attend(h, strip_.get());
        const BlockRange range = block_.range();
        for (int64_t key = range.begin; key < range.end; ++key)
            transpose_tile(block_.map() + block_.tile(key), map_ + block_.tile(key));
        for (int64_t h = 0; h < in_.heads; ++h) {
            for (int64_t key = range.begin; key < range.end; ++key)
                brgemm(kBlock, in_.width, kBlock, map_ + block_.tile(key), kBlock, block_.values(h, key),
                       in_.width, rows_.get(), in_.width, key > range.begin);
            write(h, block);
        }
    }

    // out = y + w2 rows
    void write(int64_t head, int64_t block) {
        const T* y = y_(head, block);
        T* out = out_(head, block);
        const float* w2 = block_.w2(head);
        for (int64_t i = 0; i < y_.rows(block); ++i) {
            const float* row = rows_ + i * in_.width;
            const T* from = y + i * y_.stride;
            T* to = out + i * out_.stride;
#pragma omp simd
            for (int64_t c = 0; c < in_.width; ++c) store(to[c], load(from[c]) + w2[i] * row[c]);
        }
    }

    const ComposedInput<T>& in_;
    const Blocks<const T>& y_;
    const Blocks<T>& out_;
    ComposedBlock<T> block_;
    Scratch<float> strip_, map_, rows_;
};

}  // namespace

void compose_heads(const Composition& in, const at::Tensor& y, const at::Tensor& out) {
    with_dtype(in.q.scalar_type(), [&]<class T>(T) {
        const ComposedInput<T> input(in);
        const Blocks<const T> from(y);
        const Blocks<T> to(out);
        run_tasks(input.plan.tasks, [&] { return ComposedForward<T>(input, from, to); });
    });
}

}  // namespace speedrun::ops::cpu
