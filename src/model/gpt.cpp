#include "model/gpt.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "config/comm.h"
#include "model/bigram_rows.h"
#include "model/nodes/head.h"
#include "ops/dtype.h"
#include "util/error.h"

namespace speedrun {
namespace {

ops::Attention::Backend backend_of(const RuntimeConfig& runtime) {
    using Backend = ops::Attention::Backend;
    switch (runtime.attention) {
        case RuntimeConfig::Attention::flash_atomic:
            return Backend::flash_atomic;
        case RuntimeConfig::Attention::cudnn:
            return Backend::cudnn;
        default:
            return Backend::standard;
    }
}

}  // namespace

GPT::GPT(const Config& config, int64_t max_tokens, at::Device device)
    : device_(device),
      graph_(compile(config)),
      parameters_(config, graph_, device),
      rotary_(config.model, config.schedule.block_size, max_tokens, device, config.data.sequence_tokens),
      training_batches_(device),
      other_batches_(device),
      scalars_(graph_.scalars(), parameters_, config.numerics.activations, device),
      completed_(gradient_completions(graph_, config.model)),
      workspace_(
          std::make_unique<Workspace>(graph_.values(), scalar_type(config.numerics.activations), device)),
      attention_(ops::Attention::make(backend_of(config.runtime), device)),
      mtp_tail_(config.objective.mtp_tail == ObjectiveConfig::MtpTail::drop
                    ? ops::Targets::Tail::drop
                    : ops::Targets::Tail::keep_normaliser),
      has_paired_heads_(std::ranges::any_of(config.model.layers,
                                            [](const LayerConfig& layer) {
                                                return layer.attn &&
                                                       layer.attn->kind == AttentionConfig::Kind::paired;
                                            })),
      bigram_(config.model.input.bigram) {
    rotary_.reset(config.schedule.stages.front().window_long);
    const size_t nodes = graph_.nodes().size();
    size_t begin = nodes;
    for (size_t i = nodes; i-- > 1;) {
        if (completed_[i].empty()) continue;
        sections_.push_back({begin, i});
        begin = i;
    }
    sections_.push_back({begin, 0});
    whole_ = {nodes, 0};
}

void GPT::use_prefixes(const std::vector<int64_t>& of_each_id) {
    for (const int64_t prefix : of_each_id)
        check(prefix >= -1 && prefix < std::ssize(of_each_id), "a prefix is neither -1 nor an id");
    if (!of_each_id.empty()) prefix_of_ = at::tensor(of_each_id, at::kLong).to(device_);
}

ops::Targets GPT::targets_of(const DeviceBatch& batch, const StepSettings& settings) const {
    if (!settings.prefix_weight) return {batch.targets, batch.target_weights, mtp_tail_};
    return {batch.targets, batch.target_weights, mtp_tail_, prefix_of_, batch.prefix_weight};
}

Pass GPT::make_pass(const Batch& batch, const StepSettings& settings, BatchBuffers& buffers,
                    int64_t longest) {
    rotary_.stretch(settings.yarn_window);
    HostBatch& host = buffers.host();
    host.target_weights.assign(settings.mtp_weights.begin(), settings.mtp_weights.end());
    host.prefix_weight.assign(settings.prefix_weight ? 1 : 0,
                              static_cast<float>(settings.prefix_weight.value_or(0)));
    host.paired_cu_seqlens.clear();
    if (has_paired_heads_)
        for (const int32_t start : batch.cu_seqlens) host.paired_cu_seqlens.push_back(2 * start);
    host.bigram_rows.clear();
    if (bigram_)
        bigram_rows(*bigram_, parameters_[bigram_->table].value.size(0), batch.inputs, host.bigram_rows);
    host.sign_rows.clear();
    if (bigram_ && !bigram_->signs.empty())
        sign_rows(parameters_[bigram_->signs].value.size(0), batch.inputs, host.sign_rows);
    const DeviceBatch on_device = buffers.bring(batch);
    const auto masks = [&](const at::Tensor& cu_seqlens, int64_t most) {
        return Pass::Masks{{cu_seqlens, settings.window_short, most},
                           {cu_seqlens, settings.window_long, most}};
    };
    const auto tokens = static_cast<int64_t>(batch.inputs.size());
    return Pass{.workspace = *workspace_,
                .parameters = parameters_,
                .scalars = scalars_,
                .rotary = rotary_,
                .attention = *attention_,
                .inputs = on_device.inputs,
                .bigram_rows = on_device.bigram_rows,
                .sign_rows = on_device.sign_rows,
                .targets = targets_of(on_device, settings),
                .tied = settings.tied,
                .masks = masks(on_device.cu_seqlens, longest),
                .paired_masks = masks(on_device.paired_cu_seqlens, 2 * longest),
                .loss_per_token = at::empty({tokens}, at::TensorOptions().dtype(at::kFloat).device(device_)),
                .logits = {},
                .loss_sum = {}};
}

void GPT::run_forward(Pass& pass, bool training) {
    scalars_.evaluate();
    pass.workspace.begin(pass.inputs.size(0), training);
    for (size_t i = 0; i < graph_.nodes().size(); ++i) {
        const Node& node = *graph_.nodes()[i];
        if (pass.probe) pass.probe->enter(node, Direction::forward);
        node.forward(pass);
        pass.workspace.end_forward_node(static_cast<int>(i));
    }
}

void GPT::run_backward(Pass& pass, const Section& section) {
    for (size_t i = section.begin; i-- > section.end;) {
        const Node& node = *graph_.nodes()[i];
        if (pass.probe) pass.probe->enter(node, Direction::backward);
        node.backward(pass);
        enter(pass.probe, StepPart::rest);
        for (const ValueId id : node.outputs()) workspace_->release(id);
    }
    if (section.end > 0) return;
    scalars_.backward();
    pass.loss_sum = pass.loss_per_token.sum(at::kDouble);
}

// What the section has completed; after the last one, what waited for the scalars too.
void GPT::report(const Section& section, const GradReady& grad_ready) const {
    const auto tell = [&](const std::vector<ElementRange>& ranges) {
        for (const ElementRange& range : ranges) grad_ready(range);
    };
    tell(completed_[section.end]);
    if (section.end == 0) tell(completed_.back());
}

at::Tensor GPT::forward_backward(const Batch& batch, const StepSettings& settings, double grad_scale,
                                 const GradReady& grad_ready, StepProbe* probe) {
    check(!settings.prefix_weight || prefix_of_.defined() || device_.is_meta(),
          "this step's loss needs prefixes, and the model was given none");
    enter(probe, StepPart::rest);
    Pass pass = make_pass(batch, settings, training_batches_, settings.max_seq_len);
    pass.grad_scale = grad_scale;
    pass.probe = probe;
    if (graphs_ && !probe) return run_captured(std::move(pass), settings, grad_ready);
    run_forward(pass, /*training=*/true);
    if (!grad_ready) {
        run_backward(pass, whole_);
        return pass.loss_sum;
    }
    for (const Section& section : sections_) {
        run_backward(pass, section);
        report(section, grad_ready);
    }
    return pass.loss_sum;
}

void GPT::capture_with(std::shared_ptr<cuda::Graphs> graphs) {
    captured_.clear();
    graphs_ = std::move(graphs);
}

// What is given to the device is kept by a capture, so that it refers to nothing of the caller's.
at::Tensor GPT::run_captured(Pass own, const StepSettings& settings, const GradReady& grad_ready) {
    const bool cut = static_cast<bool>(grad_ready);
    const PassKind kind{settings.window_short,
                        settings.window_long,
                        settings.max_seq_len,
                        own.inputs.const_data_ptr(),
                        own.inputs.size(0),
                        own.masks.short_window.cu_seqlens.size(0),
                        own.targets.count(),
                        own.targets.prefix_of.defined(),
                        own.tied,
                        own.grad_scale,
                        rotary_.attn_scale(),
                        cut};
    CapturedPass& captured = captured_[kind];
    if (!captured.pass) captured.pass = std::make_shared<Pass>(std::move(own));
    std::vector<ops::WorkPart> parts;
    for (const Section& section : cut ? sections_ : std::vector{whole_}) {
        const bool first = parts.empty();
        ops::WorkPart& part = parts.emplace_back();
        part.device = [this, pass = captured.pass, section, first] {
            if (first) run_forward(*pass, /*training=*/true);
            run_backward(*pass, section);
        };
        if (cut) part.host = [this, &grad_ready, section] { report(section, grad_ready); };
    }
    captured.capture.run(parts, *graphs_);
    return captured.pass->loss_sum.clone();  // the next launch writes over it
}

at::Tensor GPT::evaluate(const Batch& batch, const StepSettings& settings) {
    Pass pass = make_pass(batch, settings, other_batches_, longest_document(batch));
    pass.targets = ops::Targets(pass.targets.next);  // the next token alone
    run_forward(pass, /*training=*/false);
    return pass.loss_per_token.mean(at::kDouble);
}

at::Tensor GPT::next_token_logits(const std::vector<int32_t>& tokens, int64_t position,
                                  const StepSettings& settings) {
    const auto length = static_cast<int32_t>(tokens.size());
    const Batch batch{tokens, std::vector<int64_t>(tokens.size(), 0), {0, length}};
    Pass pass = make_pass(batch, settings, other_batches_, length);
    pass.wanted_logits = position;
    run_forward(pass, /*training=*/false);
    return pass.logits;
}

}  // namespace speedrun
