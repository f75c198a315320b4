#include "app/bench/ops/shapes.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "model/parameters.h"
#include "util/text_table.h"

namespace speedrun {
namespace {

enum class Passed { unless_one, all };

void count_mix(PlanCounts& counts, const std::vector<MixTerm>& terms, bool with_norm,
               Passed passed = Passed::unless_one) {
    MixKind kind{.sources = std::max<size_t>(1, terms.size()), .with_norm = with_norm};
    counts.mixes[kind] += 1;
    if (with_norm) counts.norm_backwards += 1;
    for (const MixTerm& term : terms) {
        if (!term.coefficient.param.empty()) ++kind.trained;
        if (passed == Passed::all || term.coefficient != Coefficient{}) ++kind.passed;
    }
    kind.with_norm = false;
    if (kind.passed > 0) counts.mix_backwards[kind] += 1;
}

// As GPT::compile_layer reads it.
void count_layer(PlanCounts& counts, const LayerConfig& layer) {
    const bool norm = layer.attn || layer.mlp;
    if (!layer.entry.empty()) count_mix(counts, layer.entry, false);
    if (norm || !layer.before_attn.empty()) count_mix(counts, layer.before_attn, norm);
    if (layer.attn) {
        count_mix(counts, layer.attn->v_terms, false, Passed::all);
        (layer.attn->window == Window::long_window ? counts.long_windows : counts.short_windows) += 1;
        if (layer.attn->out_gate) counts.gates += 1;
        if (layer.mlp || !layer.after_attn.empty())
            count_mix(counts, layer.after_attn, layer.mlp.has_value());
    }
    if (!layer.mlp) return;
    counts.mlps += 1;
    if (!layer.after_mlp.empty()) count_mix(counts, layer.after_mlp, false);
}

}  // namespace

PlanCounts plan_counts(const ModelConfig& model) {
    PlanCounts counts;
    for (const LayerConfig& layer : model.layers)
        if (!layer.skip_layer) count_layer(counts, layer);
    count_mix(counts, model.output.mix, true);
    return counts;
}

double bytes_of_item(at::ScalarType dtype) {
    return static_cast<double>(c10::elementSize(dtype));
}

PassShapes::PassShapes(const Config& of, const StepSettings& at, const Batch& micro_batch, at::Device where)
    : config(of),
      model(of.model),
      settings(at),
      batch(micro_batch),
      device(where),
      counts(plan_counts(of.model)),
      act(scalar_type(of.numerics.activations)),
      tokens(static_cast<int64_t>(micro_batch.inputs.size())),
      d(of.model.d_model),
      one(static_cast<double>(tokens * d) * bytes_of_item(act)),
      numbers(4 * static_cast<double>(tokens)),
      passes(static_cast<double>(at.batch_tokens) / static_cast<double>(tokens)) {}

std::string PassShapes::rows(int64_t width) const {
    return format_text("%lldx%lld", static_cast<long long>(tokens), static_cast<long long>(width));
}

at::Tensor PassShapes::make(const std::vector<int64_t>& shape, at::ScalarType dtype) const {
    return at::randn(shape, at::device(device).dtype(dtype));
}

at::Tensor PassShapes::make(const std::vector<int64_t>& shape) const {
    return make(shape, act);
}

at::Tensor PassShapes::make_numbers() const {
    return make({tokens}, at::kFloat);
}

at::Tensor PassShapes::ids() const {
    return at::tensor(batch.inputs, at::kInt).to(device);
}

at::ScalarType PassShapes::dtype_of(const std::string& param) const {
    const bool fp32 = config.numerics.params == NumericsConfig::Params::fp32;
    return fp32 ? at::kFloat : scalar_type(model.param(param).dtype);
}

at::ScalarType PassShapes::used_dtype(const std::string& param) const {
    return model.multiplied(model.param(param)) ? act : dtype_of(param);
}

}  // namespace speedrun
