#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <utility>

namespace speedrun::ops {

// What bounds the logits z, as a share s of a height, from 0 to 1; softmax does not see what is added to all.
//   sigmoid: A s,      s = sigmoid((z + B) / C)         (record 43: 30, 0, 7.5, Gemma 2's tanh cap shifted)
//   rsqrt:   2 A s - A, s = (1 + z / sqrt(z^2 + A^2)) / 2  (track 3: 15)
struct Softcap {
    double a = 30, b = 0, c = 7.5;
    enum class Form { sigmoid, rsqrt } form = Form::sigmoid;

    double height() const { return form == Form::sigmoid ? a : 2 * a; }
    // The derivative of the bounded logit by z is slope() * bend(s).
    double slope() const { return form == Form::sigmoid ? a / c : 1; }
    double share(double z) const;
    double bend(double s) const;  // s (1 - s), or (4 s (1 - s))^1.5
};

// The bounded logits of z (any shape, fp32 or fp64).
at::Tensor capped(const at::Tensor& z, const Softcap& cap);

// 8-bit floats in the three products of the training form (train_gpt.py, mm_op): x and w as e4m3, the logits'
// gradient as e5m2, each divided by its scale first. logits are bf16; dx is bf16, dw fp32 before it is added.
struct Fp8Scales {
    double x = 1, w = 1, grad = 1;
};
// What the head is trained to say of each token: y_k(t) = next[t + k] with weight w_k, so that a token's loss
// is
//   sum_k w_k cross_entropy(softcap(x w^T), y_k(t))
// over the k whose t + k lies in the row (record 53: multi-token prediction). Where the next token has a
// prefix, that is one more target with weight p (record 88: prefix-token loss).
struct Targets {
    enum class Tail {
        drop,            // the gradient's softmax has the weight of the targets that are there
        keep_normaliser  // of all of them (record 79), and p only where there is a prefix
    };
    Targets(at::Tensor next_token, at::Tensor weight_of_each = {}, Tail missing = Tail::drop,
            at::Tensor prefixes = {}, at::Tensor weight_of_prefix = {})
        : next(std::move(next_token)),
          weights(std::move(weight_of_each)),
          tail(missing),
          prefix_of(std::move(prefixes)),
          prefix_weight(std::move(weight_of_prefix)) {}

    at::Tensor next;     // int64 [T]
    at::Tensor weights;  // fp32 [K], K <= most_targets, w_0 > 0; undefined: one, of 1
    Tail tail;
    at::Tensor prefix_of;      // int64 [V], of each token its prefix in [0, V) or -1; undefined: none has one
    at::Tensor prefix_weight;  // fp32 [1], p, where prefix_of is defined
    int64_t count() const { return weights.defined() ? weights.numel() : 1; }
};
inline constexpr int64_t most_targets = 4;

// On a GPU the logits of at most this many tokens at a time are kept: 3.3 GB in bf16 for a vocabulary of
// 50304.
inline constexpr int64_t gpu_head_rows = 32768;
// Whether `device` multiplies them; others use the dtype of x and w instead.
bool has_fp8(at::Device device);

// The matrix that makes logits, with what is added to them.
struct HeadWeight {
    HeadWeight(at::Tensor matrix, at::Tensor added = {}) : w(std::move(matrix)), bias(std::move(added)) {}

    at::Tensor w;     // [V, d]
    at::Tensor bias;  // [V], w's dtype; undefined: nothing is added
};

// Per token, the loss of its targets, without ever holding [T, V] logits: chunks of tokens go
// through GEMM, soft cap, cross-entropy and their backward while they are in cache.
// x [T, d], w [V, d] and its bias (fp32 or bf16), targets as above; z = x w^T + bias. The softmax runs over
// all V rows, padding included. Writes loss_per_token fp32 [T]. All outputs are contiguous; logits, cap and
// softmax are computed in fp32 whatever the dtypes, and each element of dw is rounded once. Training form
// also writes dx [T, d] (x's dtype) = grad_scale * d(sum loss)/dx and adds grad_scale * d(sum loss)/dw to dw
// [V, d] (fp32 or bf16), and the same for the bias. The result does not depend on timing, only on the number
// of threads. CPU: micro-kernels as `gemm`; a machine without AVX512-BF16, an odd d in bf16, and an x of
// another dtype than w take copies in fp32. CUDA, x and w of one dtype: GEMMs, and one kernel over logits of
// x's dtype, kept for up to 32,768 tokens; targets and prefixes are not checked. Everything else, and |A| >
// 128 (CUDA: 40), beyond fp32's range: the reference below. Throws InternalError for shapes or dtypes that do
// not fit, for a target outside [0, V), and for a target whose prefix is outside [-1, V).
void head_loss(const at::Tensor& x, const HeadWeight& w, const Targets& targets, const Softcap& softcap,
               const at::Tensor& loss_per_token);
void head_loss_backward(const at::Tensor& x, const HeadWeight& w, const Targets& targets,
                        const Softcap& softcap, double grad_scale, const at::Tensor& loss_per_token,
                        const at::Tensor& dx, const HeadWeight& dw, const std::optional<Fp8Scales>& fp8 = {});

// The same on plain ATen calls with the logits of up to 4096 tokens at a time, for tests and for devices
// without a fast path. fp64 tensors are computed in fp64, others in fp32.
void head_loss_reference(const at::Tensor& x, const HeadWeight& w, const Targets& targets,
                         const Softcap& softcap, const at::Tensor& loss_per_token);
void head_loss_backward_reference(const at::Tensor& x, const HeadWeight& w, const Targets& targets,
                                  const Softcap& softcap, double grad_scale, const at::Tensor& loss_per_token,
                                  const at::Tensor& dx, const HeadWeight& dw,
                                  const std::optional<Fp8Scales>& fp8 = {});

}  // namespace speedrun::ops
