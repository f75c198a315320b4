#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>

#include "ops/cuda/attention_graphs.h"
#include "ops/cuda/graph.h"
#include "ops/cuda/table.h"
#include "ops/head_loss.h"

namespace speedrun::ops::cuda {

// The fused ops of a GPU, with the signatures of ops/*.h and optim/*.h, whose contracts hold but for this:
// tensors are fp32 or bf16, and a shape or dtype that does not fit is an InternalError. Scratch comes from
// ATen's caching allocator.
class Fused {
  public:
    Fused(const speedrun::cuda::Kernels& kernels, speedrun::cuda::Stream stream)
        : kernels_(kernels), stream_(stream) {}

    void mix(std::span<const at::Tensor> sources, const at::Tensor& coefficients, const at::Tensor& y) const;
    void mix_norm(std::span<const at::Tensor> sources, const at::Tensor& coefficients, double eps,
                  const at::Tensor& y, const at::Tensor& normed, const at::Tensor& rstd) const;
    void mix_backward(const at::Tensor& dy, std::span<const at::Tensor> sources,
                      const at::Tensor& coefficients, std::span<const at::Tensor> dsources,
                      std::span<const uint8_t> accumulate, const at::Tensor& dcoefficients,
                      std::span<const uint8_t> wants_dc) const;
    void rms_norm(const at::Tensor& x, double eps, const at::Tensor& y, const at::Tensor& rstd) const;
    void rms_norm_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& rstd,
                           const at::Tensor& dx, bool accumulate) const;
    void relu2(const at::Tensor& x, const at::Tensor& y) const;
    void relu2_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& dx) const;
    void qk_norm_rotary(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, double eps,
                        const at::Tensor& y, const at::Tensor& rstd) const;
    void qk_norm_rotary_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& cos,
                                 const at::Tensor& sin, const at::Tensor& rstd, const at::Tensor& dx) const;
    void head_gate(const at::Tensor& y, const at::Tensor& x, const at::Tensor& w, const at::Tensor& out,
                   const at::Tensor& gate) const;
    void head_gate_backward(const at::Tensor& dout, const at::Tensor& y, const at::Tensor& x,
                            const at::Tensor& w, const at::Tensor& gate, const at::Tensor& dy,
                            const at::Tensor& dx, const at::Tensor& dw) const;
    void smear(const at::Tensor& e, const at::Tensor& w, const at::Tensor& lambda, const at::Tensor& out,
               const at::Tensor& gate) const;
    void smear_backward(const at::Tensor& dout, const at::Tensor& e, const at::Tensor& w,
                        const at::Tensor& lambda, const at::Tensor& gate, const at::Tensor& de,
                        const at::Tensor& dw, const at::Tensor& dlambda) const;
    void embedding(const at::Tensor& table, const at::Tensor& ids, const at::Tensor& out) const;
    void embedding_backward(const at::Tensor& dout, const at::Tensor& ids, const at::Tensor& dtable) const;

    // Where documents lie in packed tensors, for attention: of cu_seqlens int32 [n + 1], how many tokens each
    // document has, int32 [n], and for each of `strides`, the elements from token to token of a tensor, the
    // element at which each begins, int64 [strides, n + 1].
    struct AttentionLayout {
        at::Tensor lengths, offsets;
    };
    AttentionLayout attention_layout(const at::Tensor& cu_seqlens, std::span<const int64_t> strides) const;

    // The largest |A| whose exponentials fp32 holds.
    static constexpr double most_softcap = 40;
    // Of logits [T, V]: loss_per_token [T] and, where `gradient` [T, V] is defined, grad_scale * d(sum
    // loss)/dlogits. It may be `logits` itself.
    void softcap_loss(const at::Tensor& logits, const at::Tensor& targets, const Softcap& softcap,
                      double grad_scale, const at::Tensor& loss_per_token, const at::Tensor& gradient) const;

    // x [T, d] as 8-bit floats, x / scale in `dtype` (Float8_e4m3fn or Float8_e5m2): as it is, [T, d], and
    // transposed, [d, T]. T and d are multiples of 16.
    struct Quantized {
        at::Tensor whole, transposed;
    };
    Quantized quantize(const at::Tensor& x, double scale, at::ScalarType dtype) const;
    // What quantize() makes, as e5m2, of the gradient that softcap_loss would leave in bf16.
    Quantized softcap_loss_fp8(const at::Tensor& logits, const at::Tensor& targets, const Softcap& softcap,
                               double grad_scale, const at::Tensor& loss_per_token, double fp8_scale) const;
    // Whether the GPU multiplies 8-bit floats.
    bool has_fp8() const { return compute_capability() >= 89; }
    int compute_capability() const { return kernels_.compute_capability(); }
    speedrun::cuda::Stream stream() const { return stream_; }

    // ops::batched_gram of matrices that take_gram.
    void gram(const at::Tensor& x, const at::Tensor& c, double alpha, double beta,
              const at::Tensor& addend) const;

    // What step() of optim/adam.h and momentum_update of optim/matrix_update.h need; `copy` may be undefined.
    void adam_update(const at::Tensor& value, const at::Tensor& grad, const at::Tensor& exp_avg,
                     const at::Tensor& exp_avg_sq, const at::Tensor& copy,
                     const speedrun::cuda::Adam& numbers) const;
    void momentum_update(const at::Tensor& grad, const at::Tensor& momentum, const at::Tensor& update,
                         const speedrun::cuda::Number& mu, bool lerp, bool nesterov) const;
    // Tensors as apply_matrix_update takes them; `numbers` but for its addresses.
    void matrix_update(const at::Tensor& update, const at::Tensor& factors, const at::Tensor& second_moment,
                       const at::Tensor& value, const at::Tensor& copy,
                       const speedrun::cuda::MatrixUpdate& numbers) const;

  private:
    Quantized with_transpose(at::Tensor whole) const;

    const speedrun::cuda::Kernels& kernels_;
    speedrun::cuda::Stream stream_;
};

// Whether a fused kernel takes this tensor: a CUDA tensor of fp32 or bf16.
bool fused(const at::Tensor& x);

// Whether Fused::gram takes x [n, rows, cols]: bf16, contiguous, rows and cols multiples of 8.
bool takes_gram(const at::Tensor& x);

// The kernels of libspeedrun_cuda.so on the current stream of `x`'s device. UserError where the module is
// missing.
Fused on_device_of(const at::Tensor& x);

// What records work of a GPU. UserError where the module is missing.
const speedrun::cuda::GraphTable& graph_table();
std::shared_ptr<speedrun::cuda::Graphs> make_graphs();

// cuDNN's attention. UserError where the module is missing or was built without it.
const speedrun::cuda::CudnnAttention& cudnn_attention();

// Whether NVIDIA's driver is here, without which the module, a second's work to load, is of no use.
bool have_driver();
// Whether the build has made the module.
bool have_backend();
// Loads the module, and with it LibTorch's CUDA half. Before anything else asks ATen about GPUs. UserError as
// above.
void load_backend();

}  // namespace speedrun::ops::cuda
