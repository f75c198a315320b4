#include "ops/attention/cpu/composed_block.h"
#include "ops/attention/cpu/composition.h"
#include "ops/cpu/kernels.h"

namespace speedrun::ops::cpu {
namespace {

template <class T>
struct ComposedGradients {
    ComposedGradients(const at::Tensor& above, const CompositionGrads& grads)
        : dout(above),
          dq(grads.dq),
          dk(grads.dk),
          dv(grads.dv),
          accumulate(grads.accumulate),
          dw1(rows<float>(grads.dw1, {above.size(0), above.size(1)}, "dynamic_composition_backward: dw1")),
          dw2(rows<float>(grads.dw2, {above.size(0), above.size(1)}, "dynamic_composition_backward: dw2")) {}

    Blocks<const T> dout;
    Blocks<T> dq, dk, dv;
    bool accumulate;
    Rows<float> dw1, dw2;
};

// A task owns the tokens of its blocks: it writes the gradients of their queries and weights, and of their
// keys and values. For these it goes on to the blocks of queries that still see them. With G_h = dout_h
// v_h^T, u and A as in the header: dA = sum_h w2_h G_h, dw2_h = sum A G_h, dv_h = A^T (w2_h dout_h), du_h =
// sum dA P_h, dS_h = u_h P_h (dA - du_h).
template <class T>
class ComposedBackward {
  public:
    ComposedBackward(const ComposedInput<T>& in, const ComposedGradients<T>& grads)
        : in_(in),
          grads_(grads),
          block_(in),
          area_(kBlock * in.width),
          strip_(in.plan.slots * kBlock * kBlock),
          probabilities_(in.heads * strip_),
          above_(strip_),
          map_grad_(strip_),
          rows_(area_),
          dq_(area_),
          tile_(kBlock * kBlock),
          dk_(in.plan.slots * in.heads * area_),
          dv_(in.plan.slots * in.heads * area_),
          dw1_(in.heads * kBlock),
          dw2_(in.heads * kBlock) {}

    void run(const AttentionTask& task) {
        task_ = task;
        const auto& keys = in_.plan.keys;
        int64_t left = task.blocks.begin, entered = keys[static_cast<size_t>(left)].begin;
        for (int64_t block = left; block < std::ssize(keys); ++block) {
            const BlockRange range = keys[static_cast<size_t>(block)];
            for (; left < std::min(range.begin, task.blocks.end); ++left) leave_keys(left);
            if (left == task.blocks.end) return;
            for (; entered <= block; ++entered) enter_keys(entered);
            query_block(block);
        }
        for (; left < task.blocks.end; ++left) leave_keys(left);
    }

  private:
    bool owns(int64_t block) const { return block >= task_.blocks.begin && block < task_.blocks.end; }

    void enter_keys(int64_t key) {
        block_.enter_keys(key);
        std::fill_n(dk_ + block_.slot(0, key), in_.heads * area_, 0.0F);
        std::fill_n(dv_ + block_.slot(0, key), in_.heads * area_, 0.0F);
    }

    void leave_keys(int64_t key) {
        for (int64_t h = 0; h < in_.heads; ++h) {
            write_rows(dk_ + block_.slot(h, key), in_.scale, grads_.dk, h, key, false);
            write_rows(dv_ + block_.slot(h, key), 1, grads_.dv, h, key, grads_.accumulate);
        }
    }

    void write_rows(const float* from, float factor, const Blocks<T>& to, int64_t head, int64_t block,
                    bool accumulate) const {
        T* rows = to(head, block);
        for (int64_t i = 0; i < to.rows(block); ++i) {
            const float* row = from + i * in_.width;
            if (accumulate)
                add_scaled(row, factor, rows + i * to.stride, in_.width);
            else
                cpu::scale(row, factor, rows + i * to.stride, in_.width);
        }
    }

    void query_block(int64_t block) {
        block_.enter_queries(block);
        for (int64_t h = 0; h < in_.heads; ++h) block_.attend(h, probabilities_ + h * strip_);
        std::fill_n(map_grad_.get(), block_.strip_keys() * kBlock, 0.0F);
        for (int64_t h = 0; h < in_.heads; ++h) value_gradient(h, block);
        for (int64_t h = 0; h < in_.heads; ++h) attention_gradient(h, block);
        if (owns(block)) write_weights(block);
    }

    // dv, dw2 and the head's share of dA.
    void value_gradient(int64_t head, int64_t block) {
        const int64_t keys = block_.strip_keys();
        const float* w2 = block_.w2(head);
        block_.values_times(head, grads_.dout, above_.get());
        strip_dots(block_.map(), above_.get(), keys, dw2_ + head * kBlock);
        add_strip(above_.get(), w2, map_grad_.get(), keys);
        widen_rows(grads_.dout.matrix(head, block), rows_.get());
        for (int64_t i = 0; i < kBlock; ++i)
            cpu::scale(rows_ + i * in_.width, w2[i], rows_ + i * in_.width, in_.width);
        add_products(block_.map(), head, dv_.get());
    }

    // dq, dk and du.
    void attention_gradient(int64_t head, int64_t block) {
        const int64_t keys = block_.strip_keys();
        float *p = probabilities_ + head * strip_, *du = dw1_ + head * kBlock;
        strip_dots(map_grad_.get(), p, keys, du);
        score_gradient(p, map_grad_.get(), du, block_.w1(head), keys);
        widen_rows(in_.q.matrix(head, block), rows_.get());
        add_products(p, head, dk_.get());
        if (!owns(block)) return;
        const BlockRange range = block_.range();
        for (int64_t key = range.begin; key < range.end; ++key) {
            transpose_tile(p + block_.tile(key), tile_.get());
            brgemm(kBlock, in_.width, kBlock, tile_.get(), kBlock, block_.keys(head, key), in_.width,
                   dq_.get(), in_.width, key > range.begin);
        }
        write_rows(dq_.get(), in_.scale, grads_.dq, head, block, false);
    }

    // to += strip [keys, queries] times the block's rows, for the keys that are the task's.
    void add_products(const float* strip, int64_t head, float* to) {
        const BlockRange range = block_.range();
        for (int64_t key = range.begin; key < range.end; ++key)
            if (owns(key))
                brgemm(kBlock, in_.width, kBlock, strip + block_.tile(key), kBlock, rows_.get(), in_.width,
                       to + block_.slot(head, key), in_.width, true);
    }

    // Through u = w1 rstd: dw1 = rstd (du - u mean(u du)).
    void write_weights(int64_t block) {
        for (int64_t i = 0; i < in_.q.rows(block); ++i) {
            float *dw1 = grads_.dw1[block_.first() + i], *dw2 = grads_.dw2[block_.first() + i], mean = 0;
            for (int64_t h = 0; h < in_.heads; ++h) mean += block_.w1(h)[i] * dw1_.get()[h * kBlock + i];
            mean /= static_cast<float>(in_.heads);
            for (int64_t h = 0; h < in_.heads; ++h) {
                dw1[h] += block_.rstd(i) * (dw1_.get()[h * kBlock + i] - block_.w1(h)[i] * mean);
                dw2[h] += dw2_.get()[h * kBlock + i];
            }
        }
    }

    const ComposedInput<T>& in_;
    const ComposedGradients<T>& grads_;
    AttentionTask task_;
    ComposedBlock<T> block_;
    int64_t area_, strip_;
    Scratch<float> probabilities_, above_, map_grad_, rows_, dq_, tile_, dk_, dv_, dw1_, dw2_;
};

}  // namespace

void compose_heads_backward(const Composition& in, const at::Tensor& dout, const CompositionGrads& grads) {
    with_dtype(in.q.scalar_type(), [&]<class T>(T) {
        const ComposedInput<T> input(in);
        const ComposedGradients<T> gradients(dout, grads);
        run_tasks(input.plan.tasks, [&] { return ComposedBackward<T>(input, gradients); });
    });
}

}  // namespace speedrun::ops::cpu
