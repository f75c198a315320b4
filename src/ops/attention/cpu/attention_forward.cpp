#include <cmath>
#include <numbers>

#include "ops/attention/cpu/attention_cpu.h"
#include "ops/attention/cpu/attention_tile.h"
#include "ops/attention/cpu/attention_work.h"
#include "ops/cpu/kernels.h"
#include "ops/cpu/rows.h"

namespace speedrun::ops::cpu {
namespace {

template <class T>
struct Forward {
    Blocks<const T> q, k, v;
    Blocks<T> out;
    float* lse;
    float log2_scale;
    const AttentionPlan& plan;
};

// Buffers of one thread and its way through a task. Everything is transposed, [.., kBlock queries].
template <class T>
class ForwardWorker {
  public:
    explicit ForwardWorker(const Forward<T>& call)
        : call_(call),
          width_(call.q.width),
          query_(kBlock * width_),
          keys_(kBlock * width_ * call.plan.slots),
          values_(kBlock * width_ * call.plan.slots),
          scores_(kBlock * kBlock),
          probabilities_(kBlock * kBlock),
          sum_(kBlock * width_),
          rows_(kBlock * width_) {}

    void run(const AttentionTask& task) {
        head_ = task.head;
        int64_t packed = call_.plan.keys[static_cast<size_t>(task.blocks.begin)].begin;
        for (int64_t block = task.blocks.begin; block < task.blocks.end; ++block) {
            for (; packed <= block; ++packed) enter(packed);
            query_block(block);
        }
    }

  private:
    int64_t slot(int64_t key) const { return key % call_.plan.slots * kBlock * width_; }

    // Copied, because rows of the tensor lie a page or more apart.
    void enter(int64_t key) {
        pack_left(call_.k.matrix(head_, key), keys_ + slot(key));
        pack_left_transposed(call_.v.matrix(head_, key), values_ + slot(key));
    }

    void query_block(int64_t block) {
        pack_right_transposed(call_.q.matrix(head_, block), query_.get());
        softmax_.reset();
        const BlockRange keys = call_.plan.keys[static_cast<size_t>(block)];
        for (int64_t key = keys.begin; key < keys.end; ++key) visit(block, key, key > keys.begin);
        finish(block);
    }

    // Scores are [kBlock keys, kBlock queries] = K Q^T.
    void visit(int64_t block, int64_t key, bool accumulate) {
        brgemm(kBlock, kBlock, width_, keys_ + slot(key), width_, query_.get(), kBlock, scores_.get(), kBlock,
               false);
        const PairMask mask = pair_mask(call_.plan.first, block, key);
        T* p = probabilities();
        softmax_tile(scores_.get(), mask, call_.log2_scale, softmax_, p);
        if (accumulate) scale_columns(sum_.get(), width_, softmax_.rescale);
        brgemm(width_, kBlock, kBlock, values_ + slot(key), kBlock, p, kBlock, sum_.get(), kBlock,
               accumulate);
    }

    T* probabilities() const {
        if constexpr (sizeof(T) == sizeof(float)) return scores_.get();
        return probabilities_.get();
    }

    // out = sum^T / softmax.sum, lse = ln(softmax.sum) + maximum
    void finish(int64_t block) {
        pack_a(MatrixView<float>{sum_.get(), kBlock, width_, 1, kBlock}, rows_.get(), width_);
        const int64_t rows = call_.q.rows(block);
        T* out = call_.out(head_, block);
        float* lse = call_.lse + head_ * call_.q.tokens + block * kBlock;
        for (int64_t i = 0; i < rows; ++i) {
            scale(rows_ + i * width_, 1.0F / softmax_.sum[i], out + i * call_.out.stride, width_);
            lse[i] = std::log(softmax_.sum[i]) + softmax_.maximum[i] * std::numbers::ln2_v<float>;
        }
    }

    const Forward<T>& call_;
    int64_t width_, head_ = 0;
    Scratch<T> query_, keys_, values_;
    Scratch<float> scores_;
    Scratch<T> probabilities_;
    Scratch<float> sum_, rows_;
    RunningSoftmax softmax_;
};

}  // namespace

void attention_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                       const AttentionMask& mask, double scale, const at::Tensor& out,
                       const at::Tensor& lse) {
    const AttentionPlan plan(mask, q.size(0), q.size(1));
    with_dtype(q.scalar_type(), [&]<class T>(T) {
        const Forward<T> call{Blocks<const T>(q),
                              Blocks<const T>(k),
                              Blocks<const T>(v),
                              Blocks<T>(out),
                              lse.mutable_data_ptr<float>(),
                              static_cast<float>(scale * std::numbers::log2e),
                              plan};
        run_tasks(plan.tasks, [&] { return ForwardWorker<T>(call); });
    });
}

}  // namespace speedrun::ops::cpu
