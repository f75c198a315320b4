#include "model/gpt.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <set>
#include <utility>

#include "config/comm.h"
#include "util/error.h"

namespace speedrun {

GPT::GPT(const Config& config, int64_t max_tokens, at::Device device)
    : model_(config.model),
      device_(device),
      parameters_(config.model, config.numerics, device, contiguous_runs(config)),
      rotary_(config.model, config.schedule.block_size, max_tokens, device),
      training_batches_(device),
      other_batches_(device) {
    rotary_.reset(config.schedule.stages.front().window_long);
    compile(model_, config.numerics);
    find_completions();
    if (config.runtime.attention == RuntimeConfig::Attention::cudnn && !device.is_meta())
        cudnn_ = std::make_unique<ops::cuda::CudnnAttention>(device);
    atomic_attention_ = config.runtime.attention == RuntimeConfig::Attention::flash_atomic;
}

// ---- the plan becomes a flat list
// ------------------------------------------------------------------------------

void GPT::compile(const ModelConfig& model, const NumericsConfig& numerics) {
    const at::ScalarType activations = numerics.activations == Dtype::bf16 ? at::kBFloat16 : at::kFloat;
    ValueDeclarations values;
    BuildContext build{model, activations, values, coefficients_, 0, numerics.lm_head};
    const auto add = [&](auto layer) {
        layers_.push_back(std::move(layer));
        build.layer = static_cast<int>(layers_.size());
    };
    auto input = std::make_unique<InputLayer>(build);
    names_ = {{"x0", input->x0()}};
    ValueId x = input->x0();
    add(std::move(input));
    if (!model.input.value_embeds.empty()) {
        const int64_t tables = model.param(model.input.value_embeds).shape.front();
        for (int64_t k = 0; k < tables; ++k) {
            auto embed = std::make_unique<ValueEmbedLayer>(build, k);
            names_["ve." + std::to_string(k)] = embed->output();
            add(std::move(embed));
        }
    }
    for (const LayerConfig& layer : model.layers) {
        if (!layer.skip_layer) x = compile_layer(build, layer, x);
        if (!layer.cache.empty()) names_[layer.cache] = x;
    }
    names_["x"] = x;
    std::vector<ValueId> sources;
    for (const MixTerm& term : model.output.mix) sources.push_back(names_.at(term.source));
    auto mix = std::make_unique<MixLayer>(build, model.output.mix, sources, /*with_norm=*/true);
    head_input_ = mix->normed();
    add(std::move(mix));
    add(std::make_unique<HeadLayer>(build, head_input_));
    coefficients_.finish(device_);
    workspace_ = std::make_unique<Workspace>(values.specs(), device_);
}

// Backward goes through the layers in reverse, so the first layer that trains an entry completes it. What
// none of them trains waits for the coefficients, which train the scalars.
void GPT::find_completions() {
    std::set<BankEntry> claimed;
    completed_.resize(layers_.size() + 1);
    for (size_t i = 0; i < layers_.size(); ++i)
        for (const BankEntry& entry : layers_[i]->trained())
            if (claimed.insert(entry).second) completed_[i].push_back(entry);
    for (const ParamConfig& param : model_.params) {
        const bool by_entry = std::ranges::any_of(
            claimed, [&](const BankEntry& entry) { return entry.param == param.name && entry.index >= 0; });
        if (!by_entry && !claimed.contains({param.name})) completed_.back().push_back({param.name});
        for (int64_t k = 0; by_entry && k < param.shape[0]; ++k)
            if (!claimed.contains({param.name, k})) completed_.back().push_back({param.name, k});
    }
}

ValueId GPT::compile_layer(BuildContext& build, const LayerConfig& layer, ValueId x) {
    const auto add = [&](auto op) {
        layers_.push_back(std::move(op));
        build.layer = static_cast<int>(layers_.size());
    };
    ValueId normed = -1;
    const std::vector<MixTerm> unchanged{{Coefficient{}, "x"}};
    // x <- mix of `terms`; leaves rms_norm(x) in `normed` where the next op wants it
    const auto mix = [&](const std::vector<MixTerm>& terms, bool with_norm) {
        if (terms.empty() && !with_norm) return;
        const auto& used = terms.empty() ? unchanged : terms;
        names_["x"] = x;
        std::vector<ValueId> sources;
        for (const MixTerm& term : used) sources.push_back(names_.at(term.source));
        auto op = std::make_unique<MixLayer>(build, used, sources, with_norm);
        x = op->output();
        normed = op->normed();
        add(std::move(op));
    };
    mix(layer.entry, false);
    mix(layer.before_attn, layer.attn || layer.mlp);
    if (layer.attn) {
        std::vector<ValueId> sources;
        for (const MixTerm& term : layer.attn->v_terms)
            sources.push_back(term.source == "v" ? -1 : names_.at(term.source));
        auto attn = std::make_unique<AttentionLayer>(build, *layer.attn, layer.index, normed, sources);
        names_["attn_out"] = attn->output();
        add(std::move(attn));
        mix(layer.after_attn, layer.mlp.has_value());
    }
    if (layer.mlp) {
        auto mlp = std::make_unique<MlpLayer>(build, *layer.mlp, layer.index, normed);
        names_["mlp_out"] = mlp->output();
        add(std::move(mlp));
        mix(layer.after_mlp, false);
    }
    return x;
}

// ---- running it
// ------------------------------------------------------------------------------------------------

Pass GPT::make_pass(const Batch& batch, const AttentionSettings& settings, BatchBuffers& buffers) {
    rotary_.stretch(settings.yarn_window);
    const DeviceBatch on_device = buffers.bring(batch);
    const at::Tensor& cu_seqlens = on_device.cu_seqlens;
    const auto tokens = static_cast<int64_t>(batch.inputs.size());
    const int64_t longest = settings.longest > 0 ? settings.longest : longest_document(batch);
    const auto mask = [&](int64_t window) {
        return ops::AttentionMask{cu_seqlens, window, longest, cudnn_.get(), atomic_attention_};
    };
    return Pass{.workspace = *workspace_,
                .parameters = parameters_,
                .coefficients = coefficients_,
                .rotary = rotary_,
                .inputs = on_device.inputs,
                .targets = on_device.targets,
                .short_mask = mask(settings.window_short),
                .long_mask = mask(settings.window_long),
                .loss_per_token = at::empty({tokens}, at::TensorOptions().dtype(at::kFloat).device(device_)),
                .loss_sum = {}};
}

void GPT::run_forward(Pass& pass, bool training) {
    coefficients_.evaluate(parameters_);
    pass.workspace.begin(pass.inputs.size(0), training);
    for (size_t i = 0; i < layers_.size(); ++i) {
        enter(pass.probe, layers_[i]->part());
        layers_[i]->forward(pass);
        pass.workspace.end_forward_op(static_cast<int>(i));
    }
}

void GPT::run_backward(Pass& pass, size_t begin, size_t end) {
    for (size_t i = begin; i-- > end;) {
        enter(pass.probe, layers_[i]->part());
        layers_[i]->backward(pass);
        enter(pass.probe, StepPart::rest);
        for (const ValueId id : layers_[i]->outputs()) workspace_->release(id);
    }
}

// A part ends where gradients are complete that somebody waits for; the last one ends the pass. What is given
// to the device is kept by a recording, so that it refers to nothing of the caller's.
std::vector<ops::WorkPart> GPT::parts_of(const std::shared_ptr<Pass>& pass, const GradReady& grad_ready) {
    const auto report = [&grad_ready](const std::vector<BankEntry>& completed) {
        return [&grad_ready, &completed] {
            for (const BankEntry& entry : completed) grad_ready(entry.param, entry.index);
        };
    };
    std::vector<ops::WorkPart> parts;
    size_t begin = layers_.size();
    const auto until = [&](size_t end) {
        const bool first = parts.empty();
        return [this, pass, first, begin, end] {
            if (first) run_forward(*pass, /*training=*/true);
            run_backward(*pass, begin, end);
        };
    };
    for (size_t i = layers_.size(); grad_ready && i-- > 0;) {
        if (completed_[i].empty()) continue;
        parts.push_back({until(i), report(completed_[i])});
        begin = i;
    }
    parts.push_back({[this, pass, rest = until(0)] {
                         rest();
                         coefficients_.backward(parameters_);
                         pass->loss_sum = pass->loss_per_token.sum(at::kDouble);
                     },
                     grad_ready ? report(completed_.back()) : std::function<void()>()});
    return parts;
}

at::Tensor GPT::forward_backward(const Batch& batch, const AttentionSettings& settings, double grad_scale,
                                 const GradReady& grad_ready, StepProbe* probe) {
    enter(probe, StepPart::rest);
    auto pass = std::make_shared<Pass>(make_pass(batch, settings, training_batches_));
    pass->grad_scale = grad_scale;
    pass->probe = probe;
    if (graphs_ && !probe) return run_recorded(std::move(pass), settings, grad_ready);
    for (const ops::WorkPart& part : parts_of(pass, grad_ready)) {
        part.device();
        if (part.host) part.host();
    }
    return pass->loss_sum;
}

void GPT::record_with(std::shared_ptr<cuda::Graphs> graphs) {
    recorded_.clear();
    graphs_ = std::move(graphs);
}

at::Tensor GPT::run_recorded(std::shared_ptr<Pass> pass, const AttentionSettings& settings,
                             const GradReady& grad_ready) {
    const bool cut = static_cast<bool>(grad_ready);
    const PassKind kind{settings,
                        pass->inputs.const_data_ptr(),
                        pass->inputs.size(0),
                        pass->short_mask.cu_seqlens.size(0),
                        pass->grad_scale,
                        rotary_.attn_scale(),
                        cut};
    RecordedPass& recorded = recorded_[kind];
    if (!recorded.pass) recorded.pass = std::move(pass);
    recorded.recording.run(parts_of(recorded.pass, grad_ready), *graphs_);
    return recorded.pass->loss_sum.clone();  // the next launch writes over it
}

at::Tensor GPT::evaluate(const Batch& batch, const AttentionSettings& settings) {
    Pass pass = make_pass(batch, settings, other_batches_);
    run_forward(pass, /*training=*/false);
    return pass.loss_per_token.mean(at::kDouble);
}

at::Tensor GPT::next_token_logits(const std::vector<int32_t>& tokens, int64_t position,
                                  const AttentionSettings& settings) {
    const auto length = static_cast<int32_t>(tokens.size());
    const Batch batch{tokens, std::vector<int64_t>(tokens.size(), 0), {0, length}};
    Pass pass = make_pass(batch, settings, other_batches_);
    coefficients_.evaluate(parameters_);
    workspace_->begin(length, /*training=*/false);
    for (size_t i = 0; i + 1 < layers_.size(); ++i) {  // all but the loss
        layers_[i]->forward(pass);
        if (i + 2 < layers_.size()) workspace_->end_forward_op(static_cast<int>(i));
    }
    const auto& output = model_.output;
    const at::Tensor x = workspace_->value(head_input_)[position].to(at::kFloat);
    const at::Tensor z = at::mv(parameters_[output.head].used.to(at::kFloat), x);
    return at::sigmoid((z + output.softcap_b) / output.softcap_c) * output.softcap_a;
}

}  // namespace speedrun
