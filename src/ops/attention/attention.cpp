#include "ops/attention/attention.h"

#include <ATen/ops/empty.h>

#include <array>
#include <initializer_list>
#include <sstream>

#include "ops/attention/attention_check.h"
#include "ops/attention/attention_cuda.h"
#include "ops/attention/cpu/attention_cpu.h"
#include "ops/attention/cudnn_attention.h"
#include "ops/cpu/brgemm.h"
#include "util/error.h"

namespace speedrun::ops {
namespace {

enum class Path {
    kBlocks,   // CPU, by blocks
    kWidened,  // the same in fp32, for bf16 on processors without bf16 micro-kernels
    kFlash,    // CUDA
    kReference
};

Path path_of(const at::Tensor& q) {
    const at::ScalarType dtype = q.scalar_type();
    if (q.is_cpu() && dtype == at::kFloat) return Path::kBlocks;
    if (q.is_cpu() && dtype == at::kBFloat16) return widens_attention() ? Path::kWidened : Path::kBlocks;
    if (q.is_cuda() && (dtype == at::kHalf || dtype == at::kBFloat16)) return Path::kFlash;
    return Path::kReference;
}

void check_like(const at::Tensor& x, const at::Tensor& q, const char* name) {
    if (x.sizes() == q.sizes() && x.scalar_type() == q.scalar_type() && x.device() == q.device() &&
        (x.stride(2) == 1 || x.size(2) == 1)) {
        return;
    }
    std::ostringstream what;
    what << "attention: " << name << " is " << x.sizes() << " " << x.scalar_type() << " on " << x.device()
         << ", expected " << q.sizes() << " " << q.scalar_type() << " on " << q.device()
         << " with a contiguous last dimension";
    throw InternalError(what.str());
}

void check_call(const at::Tensor& q, const AttentionMask& mask, const at::Tensor& lse) {
    check(q.dim() == 3, "attention: q must be [T, H, D]");
    check(mask.window >= 0, "attention: window must not be negative");
    check(mask.cu_seqlens.dim() == 1 && mask.cu_seqlens.scalar_type() == at::kInt &&
              mask.cu_seqlens.is_contiguous(),
          "attention: cu_seqlens must be contiguous int32 [n]");
    check(lse.dim() == 2 && lse.size(0) == q.size(1) && lse.size(1) == q.size(0),
          "attention: lse must be [H, T]");
    if (path_of(q) == Path::kReference) return;
    check(lse.scalar_type() == at::kFloat && lse.is_contiguous() && lse.device() == q.device(),
          "attention: lse must be contiguous fp32 on q's device");
    check(mask.cu_seqlens.device() == q.device(), "attention: cu_seqlens must be on q's device");
    check(q.size(2) % 2 == 0, "attention: D must be even");
}

at::Tensor widened(const at::Tensor& x) {
    return x.to(at::kFloat);
}

void widened_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionMask& mask,
                     double scale, const at::Tensor& out, const at::Tensor& lse) {
    const at::Tensor wide_out = at::empty(out.sizes(), out.options().dtype(at::kFloat));
    cpu::attention_forward(widened(q), widened(k), widened(v), mask, scale, wide_out, lse);
    out.copy_(wide_out);
}

void widened_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                      const at::Tensor& out, const at::Tensor& lse, const AttentionMask& mask, double scale,
                      const at::Tensor& dq, const at::Tensor& dk, const at::Tensor& dv) {
    const at::Tensor wide = at::empty({3, q.size(0), q.size(1), q.size(2)}, q.options().dtype(at::kFloat));
    cpu::attention_backward(widened(dout), widened(q), widened(k), widened(v), widened(out), lse, mask, scale,
                            wide[0], wide[1], wide[2]);
    dq.copy_(wide[0]);
    dk.copy_(wide[1]);
    dv.copy_(wide[2]);
}

class StandardAttention final : public Attention {
  public:
    explicit StandardAttention(bool atomic) : atomic_(atomic) {}

    void forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionMask& mask,
                 double scale, const at::Tensor& out, const at::Tensor& lse) const override {
        check_attention({q, k, v, out}, mask, lse);
        if (q.numel() == 0 || q.is_meta()) return;
        switch (path_of(q)) {
            case Path::kBlocks:
                return cpu::attention_forward(q, k, v, mask, scale, out, lse);
            case Path::kWidened:
                return widened_forward(q, k, v, mask, scale, out, lse);
            case Path::kFlash:
                return cuda::attention_forward(q, k, v, mask, scale, out, lse);
            case Path::kReference:
                return attention_forward_reference(q, k, v, mask, scale, out, lse);
        }
    }

    AttentionGrads backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const at::Tensor& out, const at::Tensor& lse,
                            const AttentionMask& mask, double scale,
                            const AttentionGrads& memory) const override {
        const auto& [dq, dk, dv] = memory;
        check_attention({q, k, v, out, dout, dq, dk, dv}, mask, lse);
        if (q.numel() == 0 || q.is_meta()) return memory;
        switch (path_of(q)) {
            case Path::kBlocks:
                cpu::attention_backward(dout, q, k, v, out, lse, mask, scale, dq, dk, dv);
                break;
            case Path::kWidened:
                widened_backward(dout, q, k, v, out, lse, mask, scale, dq, dk, dv);
                break;
            case Path::kFlash:
                return cuda::attention_backward(dout, q, k, v, out, lse, mask, scale, atomic_);
            case Path::kReference:
                attention_backward_reference(dout, q, k, v, out, lse, mask, scale, dq, dk, dv);
                break;
        }
        return memory;
    }

  private:
    bool atomic_;
};

}  // namespace

void check_attention(std::initializer_list<at::Tensor> tensors, const AttentionMask& mask,
                     const at::Tensor& lse) {
    constexpr std::array names{"q", "k", "v", "out", "dout", "dq", "dk", "dv"};
    const at::Tensor& q = *tensors.begin();
    check_call(q, mask, lse);
    size_t index = 0;
    for (const at::Tensor& x : tensors) check_like(x, q, names.at(index++));
}

bool widens_attention() {
    return !cpu::has_bf16_brgemm();
}

std::unique_ptr<Attention> Attention::make(Backend backend, at::Device device) {
    if (backend == Backend::cudnn && !device.is_meta()) return std::make_unique<cuda::CudnnAttention>(device);
    return std::make_unique<StandardAttention>(backend == Backend::flash_atomic);
}

}  // namespace speedrun::ops
