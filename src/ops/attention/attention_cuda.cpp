#include "ops/attention/attention_cuda.h"

#include <ATen/Context.h>
#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/empty.h>

#include <utility>

#include "util/error.h"

namespace speedrun::ops::cuda {
namespace {

// Repeats in cu_seqlens are sequences of length zero, which the kernels leave out.
int64_t longest(const at::Tensor& q, const AttentionMask& mask) {
    return mask.max_document > 0 ? mask.max_document : q.size(0);
}

// While it lives ATen sums in one order where it can; what it allocates stays as it is.
class OneOrder {
  public:
    explicit OneOrder(bool wanted)
        : deterministic_(context_.deterministicAlgorithms()),
          warn_only_(context_.deterministicAlgorithmsWarnOnly()),
          fill_(context_.deterministicFillUninitializedMemory()) {
        if (!wanted) return;
        context_.setDeterministicAlgorithms(true, /*warn_only=*/false);
        context_.setDeterministicFillUninitializedMemory(false);
    }
    OneOrder(const OneOrder&) = delete;
    OneOrder& operator=(const OneOrder&) = delete;
    ~OneOrder() {
        context_.setDeterministicAlgorithms(deterministic_, warn_only_);
        context_.setDeterministicFillUninitializedMemory(fill_);
    }

  private:
    at::Context& context_ = at::globalContext();
    bool deterministic_, warn_only_, fill_;
};

}  // namespace

void attention_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                       const AttentionMask& mask, double scale, const at::Tensor& out,
                       const at::Tensor& lse) {
    const int64_t length = longest(q, mask);
    const auto [result, logsumexp, seed, offset, debug] = at::_flash_attention_forward(
        q, k, v, mask.cu_seqlens, mask.cu_seqlens, length, length, /*dropout_p=*/0.0, /*is_causal=*/true,
        /*return_debug_mask=*/false, scale, /*window_size_left=*/mask.window,
        /*window_size_right=*/int64_t{0});
    check(logsumexp.sizes() == lse.sizes(), "flash attention returned lse in another layout than [H, T]");
    out.copy_(result);
    lse.copy_(logsumexp);
}

AttentionGrads attention_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                                  const at::Tensor& v, const at::Tensor& out, const at::Tensor& lse,
                                  const AttentionMask& mask, double scale, bool atomic) {
    const int64_t length = longest(q, mask);
    // Read only where there is dropout.
    const at::Tensor no_rng = at::empty({2}, q.options().dtype(at::kUInt64));
    const at::Tensor unused = at::empty({0}, q.options().dtype(at::kUInt64));
    const OneOrder order(!atomic);
    auto [dq, dk, dv] = at::_flash_attention_backward(
        dout, q, k, v, out, lse, mask.cu_seqlens, mask.cu_seqlens, length, length, /*dropout_p=*/0.0,
        /*is_causal=*/true, no_rng, unused, scale, /*window_size_left=*/mask.window,
        /*window_size_right=*/int64_t{0});
    return {std::move(dq), std::move(dk), std::move(dv)};
}

}  // namespace speedrun::ops::cuda
