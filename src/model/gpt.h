#pragma once
#include <ATen/core/Tensor.h>

#include <compare>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "config/schedule.h"
#include "data/batch.h"
#include "model/batch_buffers.h"
#include "model/graph/completions.h"
#include "model/graph/graph.h"
#include "model/parameters.h"
#include "model/pass.h"
#include "model/rotary.h"
#include "model/workspace.h"
#include "ops/capture.h"

namespace speedrun {

// Called when backward has completed the gradient of a part of a parameter.
using GradReady = std::function<void(const ElementRange& part)>;

// A graph with memory: parameters, and what a pass over it needs. It walks the nodes in order for forward,
// and in reverse for backward.
class GPT {
  public:
    // max_tokens: longest micro-batch it will see (rotary tables). On the meta device tensors have shapes but
    // no memory, and ops do nothing: passes then only find out activation_bytes(). UserError where
    // runtime.attention cannot be had on the device.
    GPT(const Config& config, int64_t max_tokens, at::Device device);

    at::Device device() const { return device_; }
    const Graph& graph() const { return graph_; }
    ParameterTable& parameters() { return parameters_; }
    const ParameterTable& parameters() const { return parameters_; }
    Rotary& rotary() { return rotary_; }

    // Of each token id its prefix, an id or -1 (data/prefix_table.h): to be given before training where
    // StepSettings::prefix_weight is. Empty where the config has no table.
    void use_prefixes(const std::vector<int64_t>& of_each_id);

    // What was captured before is forgotten; from now on passes with backward are captured where no probe
    // asks for their parts: each kind of pass (settings, place of the batch) is launched from its third time
    // on, cut where `grad_ready` is called. Null: nothing is.
    void capture_with(std::shared_ptr<cuda::Graphs> graphs);

    // Adds grad_scale * d(sum of the tokens' losses)/dp to every parameter's gradient; returns the sum of
    // losses (fp64, 0-dim, on the device). Backward reports gradients to `grad_ready` when this pass will not
    // touch them again. `probe` is told of every part as the device is given it.
    at::Tensor forward_backward(const Batch& batch, const StepSettings& settings, double grad_scale,
                                const GradReady& grad_ready = {}, StepProbe* probe = nullptr);

    // Mean loss of a micro-batch (fp64, 0-dim, on the device); no gradients, head without FP8.
    at::Tensor evaluate(const Batch& batch, const StepSettings& settings);

    // Soft-capped logits fp32 [vocab_size] for the token that follows tokens[position]; later tokens have no
    // effect.
    at::Tensor next_token_logits(const std::vector<int32_t>& tokens, int64_t position,
                                 const StepSettings& settings);

    // Before the first pass: memory for the values, gradients and temporaries of all that will come, of
    // whatever length; what activation_bytes() was after the same passes of a model on the meta device.
    void reserve_activations(int64_t bytes) { workspace_->reserve(bytes); }
    // What they have taken so far; it stays allocated.
    int64_t activation_bytes() const { return workspace_->allocated_bytes(); }

  private:
    // Nodes [end, begin) of backward, the last first, after which gradients are complete that somebody waits
    // for.
    struct Section {
        size_t begin, end;
    };
    Pass make_pass(const Batch& batch, const StepSettings& settings, BatchBuffers& buffers, int64_t longest);
    ops::Targets targets_of(const DeviceBatch& batch, const StepSettings& settings) const;
    void run_forward(Pass& pass, bool training);
    void run_backward(Pass& pass, const Section& section);
    void report(const Section& section, const GradReady& grad_ready) const;
    at::Tensor run_captured(Pass pass, const StepSettings& settings, const GradReady& grad_ready);

    at::Device device_;
    Graph graph_;
    ParameterTable parameters_;
    Rotary rotary_;
    BatchBuffers training_batches_;  // where captured passes read them, whatever passes come in between
    BatchBuffers other_batches_;
    ScalarTable scalars_;
    std::vector<std::vector<ElementRange>> completed_;  // gradient_completions()
    std::vector<Section> sections_;
    Section whole_;
    std::unique_ptr<Workspace> workspace_;
    std::unique_ptr<ops::Attention> attention_;
    ops::Targets::Tail mtp_tail_;
    at::Tensor prefix_of_;  // int64 [vocab_size], or undefined
    bool has_paired_heads_;
    std::optional<Bigram> bigram_;

    // What a captured pass depends on beside the contents of its tensors.
    struct PassKind {
        int64_t window_short, window_long, longest;
        const void* inputs;  // of two sets of buffers
        int64_t tokens, documents, targets;
        bool prefixes, tied;
        double grad_scale, attn_scale;
        bool cut;
        auto operator<=>(const PassKind&) const = default;
    };
    struct CapturedPass {
        std::shared_ptr<Pass> pass;  // keeps what the capture reads and writes
        ops::Capture capture;
    };
    std::shared_ptr<cuda::Graphs> graphs_;  // null: nothing is captured
    std::map<PassKind, CapturedPass> captured_;
};

}  // namespace speedrun
