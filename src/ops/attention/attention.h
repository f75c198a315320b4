#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

namespace speedrun::ops {

// Document-masked, causal, sliding-window attention over one packed sequence of T tokens:
// query t sees keys max(start of t's document, t - window) .. t.
struct AttentionMask {
    at::Tensor cu_seqlens;  // int32 [n] on the CPU (CUDA: on the device): document starts, padded with T; may
                            // hold repeats
    int64_t window = 0;     // tokens to the left, so window + 1 keys at most
    int64_t max_document = 0;  // CUDA: no document is longer (0: T), known without asking the device
};

struct AttentionGrads {
    at::Tensor dq, dk, dv;
};

// What computes attention, chosen once for a model.
class Attention {
  public:
    enum class Backend : uint8_t {
        standard,      // what the tensors' device and dtype have; on GPUs with the same bits each time
        flash_atomic,  // GPUs: ATen's flash attention, dq summed by atomic additions
        cudnn          // GPUs, bf16: cuDNN's, which sums that way too
    };
    // UserError where `device` cannot have it.
    static std::unique_ptr<Attention> make(Backend backend, at::Device device);

    virtual ~Attention() = default;
    // q, k, v, out [T, H, D], same dtype (fp32 or bf16), last dimension contiguous (row stride may be larger
    // than H * D); lse fp32 [H, T]: natural log of the sum of exp(scale * q.k), saved for backward. Softmax
    // in fp32. CPU with fp32 or bf16 (D even): blocks, visiting only what window and document allow; the
    // result does not depend on the number of threads. CUDA with bf16 or fp16: ATen's flash attention, or
    // cuDNN's. Everything else: the reference below. Shapes or dtypes that disagree, cu_seqlens that do not
    // run from 0 to T: InternalError.
    virtual void forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         const AttentionMask& mask, double scale, const at::Tensor& out,
                         const at::Tensor& lse) const = 0;

    // Returns what holds the gradients: `memory`, overwritten (same shapes and strides rule as q, k, v), or
    // where an implementation puts them that takes no memory of others (ATen's flash attention).
    virtual AttentionGrads backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                                    const at::Tensor& v, const at::Tensor& out, const at::Tensor& lse,
                                    const AttentionMask& mask, double scale,
                                    const AttentionGrads& memory) const = 0;
};

// Whether bf16 tensors of a CPU are widened to fp32, which takes memory as long as a call lasts: q, k, v,
// out, and in backward their gradients.
bool widens_attention();

// The plain definition with a dense [T, T] mask, for tests and for devices without a fast path. Any floating
// dtype and any strides; computes in fp32, for fp64 inputs in fp64. The backward pass computes the softmax
// again and reads neither out nor lse.
void attention_forward_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 const AttentionMask& mask, double scale, const at::Tensor& out,
                                 const at::Tensor& lse);
void attention_backward_reference(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                                  const at::Tensor& v, const at::Tensor& out, const at::Tensor& lse,
                                  const AttentionMask& mask, double scale, const at::Tensor& dq,
                                  const at::Tensor& dk, const at::Tensor& dv);

}  // namespace speedrun::ops
