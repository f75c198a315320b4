#pragma once
#include <ATen/core/Tensor.h>

#include <compare>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "config/config.h"
#include "data/batch.h"
#include "model/batch_buffers.h"
#include "model/layers.h"
#include "model/parameters.h"
#include "model/rotary.h"
#include "model/workspace.h"
#include "ops/attention/cudnn_attention.h"
#include "ops/recording.h"

namespace speedrun {

// Windows and YaRN state of a pass, in the units of StepSettings.
struct AttentionSettings {
    int64_t window_short = 0, window_long = 0;  // tokens
    int64_t yarn_window = 0;                    // blocks
    int64_t longest = 0;                        // tokens; no document of a batch has more; 0: the batch tells
    auto operator<=>(const AttentionSettings&) const = default;
};

// Called when backward has completed the gradient of an entry of a parameter's dimension 0 (-1: of all of
// it).
using GradReady = std::function<void(const std::string& param, int64_t index)>;

// The model of a layer plan: parameters, and the flat list of layers that forward walks in order and backward
// in reverse.
class GPT {
  public:
    // max_tokens: longest micro-batch it will see (rotary tables). On the meta device tensors have shapes but
    // no memory, and ops do nothing: passes then only find out activation_bytes(). UserError where
    // runtime.attention cannot be had on the device.
    GPT(const Config& config, int64_t max_tokens, at::Device device);

    at::Device device() const { return device_; }
    ParameterTable& parameters() { return parameters_; }
    const ParameterTable& parameters() const { return parameters_; }
    Rotary& rotary() { return rotary_; }

    // What was recorded before is forgotten; from now on passes with backward are recorded where no probe
    // asks for their parts: each kind of pass (settings, place of the batch) is launched from its third time
    // on, cut where `grad_ready` is called. Null: nothing is.
    void record_with(std::shared_ptr<cuda::Graphs> graphs);

    // Adds grad_scale * d(sum of the tokens' losses)/dp to every parameter's gradient; returns the sum of
    // losses (fp64, 0-dim, on the device). Backward reports each gradient to `grad_ready` when this pass will
    // not touch it again. `probe` is told of every part as the device is given it.
    at::Tensor forward_backward(const Batch& batch, const AttentionSettings& settings, double grad_scale,
                                const GradReady& grad_ready = {}, StepProbe* probe = nullptr);

    // Mean loss of a micro-batch (fp64, 0-dim, on the device); no gradients, head without FP8.
    at::Tensor evaluate(const Batch& batch, const AttentionSettings& settings);

    // Soft-capped logits fp32 [vocab_size] for the token that follows tokens[position]; later tokens have no
    // effect.
    at::Tensor next_token_logits(const std::vector<int32_t>& tokens, int64_t position,
                                 const AttentionSettings& settings);

    // Before the first pass: memory for the values, gradients and temporaries of all that will come, of
    // whatever length; what activation_bytes() was after the same passes of a model on the meta device.
    void reserve_activations(int64_t bytes) { workspace_->reserve(bytes); }
    // What they have taken so far; it stays allocated.
    int64_t activation_bytes() const { return workspace_->allocated_bytes(); }

  private:
    void find_completions();
    void compile(const ModelConfig& model, const NumericsConfig& numerics);
    ValueId compile_layer(BuildContext& build, const LayerConfig& layer, ValueId x);
    Pass make_pass(const Batch& batch, const AttentionSettings& settings, BatchBuffers& buffers);
    void run_forward(Pass& pass, bool training);
    // Of layers [end, begin), the last first.
    void run_backward(Pass& pass, size_t begin, size_t end);
    std::vector<ops::WorkPart> parts_of(const std::shared_ptr<Pass>& pass, const GradReady& grad_ready);
    at::Tensor run_recorded(std::shared_ptr<Pass> pass, const AttentionSettings& settings,
                            const GradReady& grad_ready);

    ModelConfig model_;
    at::Device device_;
    ParameterTable parameters_;
    Rotary rotary_;
    BatchBuffers training_batches_;  // where recordings read them, whatever passes come in between
    BatchBuffers other_batches_;
    CoefficientTable coefficients_;
    std::vector<std::unique_ptr<Layer>> layers_;
    // What is complete after each layer's backward; the last element: after that of the coefficients.
    std::vector<std::vector<BankEntry>> completed_;
    std::map<std::string, ValueId> names_;  // while compiling: what the plan's sources mean
    ValueId head_input_ = -1;
    std::unique_ptr<Workspace> workspace_;
    std::unique_ptr<ops::cuda::CudnnAttention> cudnn_;  // where runtime.attention wants it
    bool atomic_attention_ = false;                     // the same

    // What a recorded pass depends on beside the contents of its tensors.
    struct PassKind {
        AttentionSettings settings;
        const void* inputs;  // of two sets of buffers
        int64_t tokens, documents;
        double grad_scale, attn_scale;
        bool cut;
        auto operator<=>(const PassKind&) const = default;
    };
    struct RecordedPass {
        std::shared_ptr<Pass> pass;  // keeps what the recording reads and writes
        ops::Recording recording;
    };
    std::shared_ptr<cuda::Graphs> graphs_;  // null: nothing is recorded
    std::map<PassKind, RecordedPass> recorded_;
};

}  // namespace speedrun
