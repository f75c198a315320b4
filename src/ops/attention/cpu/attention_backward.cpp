#include <numbers>

#include "ops/attention/cpu/attention_cpu.h"
#include "ops/attention/cpu/attention_tile.h"
#include "ops/attention/cpu/attention_work.h"
#include "ops/cpu/convert.h"
#include "ops/cpu/kernels.h"
#include "ops/cpu/rows.h"

namespace speedrun::ops::cpu {
namespace {

template <class T>
struct Backward {
    Blocks<const T> dout, q, k, v, out;
    const float* lse;
    Blocks<T> dq, dk, dv;
    float scale;
    const AttentionPlan& plan;
};

// Buffers of one thread and its way through a task. The task owns the tokens of its blocks: it writes dq of
// its queries and dk, dv of its keys. It visits the queries in order; keys are kept while a query may still
// see them. Keys of the task before are visited for dq alone, queries of the tasks after it for dk and dv
// alone.
template <class T>
class BackwardWorker {
  public:
    explicit BackwardWorker(const Backward<T>& call)
        : call_(call),
          width_(call.q.width),
          area_(kBlock * width_),
          query_t_(area_),
          dout_t_(area_),
          query_(area_),
          dout_(area_),
          keys_(area_ * call.plan.slots),
          values_(area_ * call.plan.slots),
          keys_t_(area_ * call.plan.slots),
          dk_(area_ * call.plan.slots),
          dv_(area_ * call.plan.slots),
          scores_(kBlock * kBlock),
          dp_(kBlock * kBlock),
          halves_(3 * kBlock * kBlock),
          dq_t_(area_),
          dq_(area_) {}

    void run(const AttentionTask& task) {
        task_ = task;
        const auto& keys = call_.plan.keys;
        const auto blocks = static_cast<int64_t>(keys.size());
        int64_t entered = keys[static_cast<size_t>(task.blocks.begin)].begin, left = task.blocks.begin;
        for (int64_t block = task.blocks.begin; block < blocks; ++block) {
            const BlockRange range = keys[static_cast<size_t>(block)];
            for (; left < std::min(range.begin, task.blocks.end); ++left) write_key_block(left);
            if (left == task.blocks.end) return;
            for (; entered <= std::min(block, task.blocks.end - 1); ++entered) enter_key_block(entered);
            query_block(block, {range.begin, std::min(range.end, task.blocks.end)});
        }
        for (; left < task.blocks.end; ++left) write_key_block(left);
    }

  private:
    int64_t slot(int64_t key) const { return key % call_.plan.slots * area_; }
    bool owns(int64_t block) const { return block >= task_.blocks.begin && block < task_.blocks.end; }

    // Copied, because rows of the tensors lie a page or more apart.
    void enter_key_block(int64_t key) {
        pack_left(call_.k.matrix(task_.head, key), keys_ + slot(key));
        pack_left(call_.v.matrix(task_.head, key), values_ + slot(key));
        pack_left_transposed(call_.k.matrix(task_.head, key), keys_t_ + slot(key));
        std::fill_n(dk_ + slot(key), area_, 0.0F);
        std::fill_n(dv_ + slot(key), area_, 0.0F);
    }

    void write_key_block(int64_t key) {
        write_rows(dk_ + slot(key), call_.scale, call_.dk, key);
        write_rows(dv_ + slot(key), 1.0F, call_.dv, key);
    }

    void write_rows(const float* from, float factor, const Blocks<T>& to, int64_t block) const {
        T* rows = to(task_.head, block);
        for (int64_t i = 0; i < to.rows(block); ++i)
            cpu::scale(from + i * width_, factor, rows + i * to.stride, width_);
    }

    void query_block(int64_t block, BlockRange keys) {
        pack_queries(block);
        for (int64_t key = keys.begin; key < keys.end; ++key) visit(block, key, key > keys.begin);
        if (!owns(block)) return;
        pack_a(MatrixView<float>{dq_t_.get(), kBlock, width_, 1, kBlock}, dq_.get(), width_);
        write_rows(dq_.get(), call_.scale, call_.dq, block);
    }

    void pack_queries(int64_t block) {
        const int64_t head = task_.head, rows = call_.q.rows(block);
        const MatrixView<T> q = call_.q.matrix(head, block), dout = call_.dout.matrix(head, block);
        const T* out = call_.out(head, block);
        pack_right_transposed(q, query_t_.get());
        pack_right_transposed(dout, dout_t_.get());
        pack_right(q, query_.get());
        pack_right(dout, dout_.get());
        const float* lse = call_.lse + head * call_.q.tokens + block * kBlock;
        queries_ = {};
        for (int64_t i = 0; i < rows; ++i) {
            queries_.log2_sum[i] = lse[i] * std::numbers::log2e_v<float>;
            queries_.delta[i] = dot(dout.data + i * dout.row_stride, out + i * call_.out.stride, width_);
        }
    }

    void visit(int64_t block, int64_t key, bool accumulate) {
        brgemm(kBlock, kBlock, width_, keys_ + slot(key), width_, query_t_.get(), kBlock, scores_.get(),
               kBlock, false);
        brgemm(kBlock, kBlock, width_, values_ + slot(key), width_, dout_t_.get(), kBlock, dp_.get(), kBlock,
               false);
        const PairMask mask = pair_mask(call_.plan.first, block, key);
        const Tiles tiles = this->tiles();
        gradient_tile(scores_.get(), dp_.get(), mask, call_.scale * std::numbers::log2e_v<float>, queries_,
                      tiles.p, tiles.ds_left, tiles.ds_right);
        if (owns(key)) {
            brgemm(kBlock, width_, kBlock, tiles.p, kBlock, dout_.get(), width_, dv_ + slot(key), width_,
                   true);
            brgemm(kBlock, width_, kBlock, tiles.ds_left, kBlock, query_.get(), width_, dk_ + slot(key),
                   width_, true);
        }
        if (owns(block)) {
            brgemm(width_, kBlock, kBlock, keys_t_ + slot(key), kBlock, tiles.ds_right, kBlock, dq_t_.get(),
                   kBlock, accumulate);
        }
    }

    struct Tiles {
        T *p, *ds_left, *ds_right;
    };
    Tiles tiles() const {
        constexpr int64_t kTile = kBlock * kBlock;
        if constexpr (sizeof(T) == sizeof(float))
            return {scores_.get(), dp_.get(), dp_.get()};
        else
            return {halves_.get(), halves_ + kTile, halves_ + 2 * kTile};
    }

    const Backward<T>& call_;
    AttentionTask task_;
    int64_t width_, area_;
    Scratch<T> query_t_, dout_t_, query_, dout_, keys_, values_, keys_t_;
    Scratch<float> dk_, dv_, scores_, dp_;
    Scratch<T> halves_;
    Scratch<float> dq_t_, dq_;
    QueryStatistics queries_{};
};

}  // namespace

void attention_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                        const at::Tensor& out, const at::Tensor& lse, const AttentionMask& mask, double scale,
                        const at::Tensor& dq, const at::Tensor& dk, const at::Tensor& dv) {
    const AttentionPlan plan(mask, q.size(0), q.size(1));
    with_dtype(q.scalar_type(), [&]<class T>(T) {
        const Backward<T> call{Blocks<const T>(dout),
                               Blocks<const T>(q),
                               Blocks<const T>(k),
                               Blocks<const T>(v),
                               Blocks<const T>(out),
                               lse.const_data_ptr<float>(),
                               Blocks<T>(dq),
                               Blocks<T>(dk),
                               Blocks<T>(dv),
                               static_cast<float>(scale),
                               plan};
        run_tasks(plan.tasks, [&] { return BackwardWorker<T>(call); });
    });
}

}  // namespace speedrun::ops::cpu
