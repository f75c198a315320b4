#pragma once
// The ops a plan compiles to, each with its forward and its hand-written backward. What the Python reference
// calls embed + smear + norm, the residual mixes, CausalSelfAttention, MLP and the head is one class each.
#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/coefficients.h"
#include "model/parameters.h"
#include "model/rotary.h"
#include "model/step_probe.h"
#include "model/workspace.h"
#include "ops/attention/attention.h"
#include "ops/head_loss.h"

namespace speedrun {

// What one forward (and backward) over a micro-batch works on.
struct Pass {
    Workspace& workspace;
    ParameterTable& parameters;
    CoefficientTable& coefficients;
    const Rotary& rotary;
    at::Tensor inputs;   // int32 [T]
    at::Tensor targets;  // int64 [T]
    ops::AttentionMask short_mask, long_mask;
    double grad_scale = 1;      // the gradient is grad_scale * d(sum of losses)
    at::Tensor loss_per_token;  // fp32 [T], written by the head
    at::Tensor loss_sum;        // fp64, 0-dim, of a pass with backward
    StepProbe* probe = nullptr;
};

// An entry of a parameter's dimension 0; index -1: all of it.
struct BankEntry {
    std::string param;
    int64_t index = -1;
    auto operator<=>(const BankEntry&) const = default;
};

class Layer {
  public:
    virtual ~Layer() = default;
    // What its time counts as, but where it tells the pass's probe otherwise.
    virtual StepPart part() const = 0;
    virtual void forward(Pass& pass) const = 0;
    virtual void backward(Pass& pass) const = 0;
    const std::vector<ValueId>& outputs() const { return outputs_; }
    // What its backward adds gradients to.
    const std::vector<BankEntry>& trained() const { return trained_; }

  protected:
    std::vector<BankEntry> trained_;
    std::vector<ValueId> outputs_;  // values whose producer this is: released after its backward
};

// Declares values while layers are built, and notes how long each must live.
class ValueDeclarations {
  public:
    ValueId declare(std::vector<int64_t> shape, at::ScalarType dtype);
    void read_in_forward(ValueId id, int layer);
    void keep_for_backward(ValueId id);
    std::vector<ValueSpec> specs() const { return specs_; }

  private:
    std::vector<ValueSpec> specs_;
};

struct BuildContext {
    const ModelConfig& model;
    at::ScalarType activations;
    ValueDeclarations& values;
    CoefficientTable& coefficients;
    int layer;  // index of the layer being built
    NumericsConfig::Head head;
};

// x0 = rms_norm(smear(embed[token])).
class InputLayer final : public Layer {
  public:
    explicit InputLayer(BuildContext& build);
    StepPart part() const override { return StepPart::norms; }
    void forward(Pass& pass) const override;
    void backward(Pass& pass) const override;
    ValueId x0() const { return x0_; }

  private:
    std::string table_;
    std::optional<SmearConfig> smear_;
    int64_t lambda_ = 0;
    double eps_;
    ValueId embedded_, gate_, smeared_, rstd_, x0_;
};

// ve.K = value_embeds[K][token].
class ValueEmbedLayer final : public Layer {
  public:
    ValueEmbedLayer(BuildContext& build, int64_t table);
    StepPart part() const override { return StepPart::norms; }
    void forward(Pass& pass) const override;
    void backward(Pass& pass) const override;
    ValueId output() const { return out_; }

  private:
    std::string param_;
    int64_t table_;
    ValueId out_;
};

// y = sum_j c_j s_j and, where wanted, rms_norm(y) in the same pass.
class MixLayer final : public Layer {
  public:
    MixLayer(BuildContext& build, const std::vector<MixTerm>& terms, std::vector<ValueId> sources,
             bool with_norm);
    StepPart part() const override { return StepPart::norms; }
    void forward(Pass& pass) const override;
    void backward(Pass& pass) const override;
    ValueId output() const { return y_; }
    ValueId normed() const { return normed_; }

  private:
    std::vector<ValueId> sources_;
    int64_t first_coefficient_;
    std::vector<uint8_t> trainable_, is_one_;
    bool with_norm_;
    double eps_;
    ValueId y_, normed_ = -1, rstd_ = -1;
};

// Attention of a normed input: q, k, v projections, QK norm + rotary, value mix, windowed attention, gate, o
// projection.
class AttentionLayer final : public Layer {
  public:
    // value_sources: for each v_term, the value of "ve.K", or -1 for "v"
    AttentionLayer(BuildContext& build, const AttentionConfig& attn, int64_t model_layer, ValueId normed,
                   std::vector<ValueId> value_sources);
    StepPart part() const override { return StepPart::attention; }
    void forward(Pass& pass) const override;
    void backward(Pass& pass) const override;
    ValueId output() const { return out_; }

  private:
    at::Tensor weight(const at::Tensor& bank, int64_t first, int64_t count) const;
    void value_mix_backward(Pass& pass, const at::Tensor& v, const at::Tensor& dv_mixed,
                            const at::Tensor& dv) const;

    AttentionConfig config_;
    int64_t bank_index_, gate_index_ = 0, d_, heads_, head_dim_;
    double eps_;
    int64_t first_coefficient_;
    std::vector<uint8_t> trainable_;
    ValueId normed_, qkv_, q_, k_, v_, q_rstd_, k_rstd_, y_, lse_, gate_, gated_, out_;
    std::vector<ValueId> value_sources_;
};

// relu(x c_fc)^2 c_proj^T of a normed input.
class MlpLayer final : public Layer {
  public:
    MlpLayer(BuildContext& build, const MlpConfig& mlp, int64_t model_layer, ValueId normed);
    StepPart part() const override { return StepPart::mlp; }
    void forward(Pass& pass) const override;
    void backward(Pass& pass) const override;
    ValueId output() const { return out_; }

  private:
    MlpConfig config_;
    int64_t fc_index_, proj_index_;
    ValueId normed_, pre_, post_, out_;
};

// Head, soft cap and cross-entropy. In training its forward already leaves the gradients of the head and of
// its input: logits are never kept.
class HeadLayer final : public Layer {
  public:
    HeadLayer(BuildContext& build, ValueId normed);
    StepPart part() const override { return StepPart::head; }
    void forward(Pass& pass) const override;
    void backward(Pass&) const override {}
    ValueId input() const { return normed_; }

  private:
    std::string param_;
    ops::Softcap softcap_;
    std::optional<ops::Fp8Scales> fp8_;
    ValueId normed_;
};

}  // namespace speedrun
