#include <algorithm>
#include <set>

#include "config/json_document.h"
#include "config/notation.h"
#include "config/validate.h"

namespace speedrun {
namespace {

using Names = std::vector<std::string>;

// Walks the model as forward does and resolves every name it meets.
class Walk {
  public:
    Walk(const ModelConfig& model, const Report& report) : model_(model), report_(report) {}

    void run() {
        input();
        for (size_t i = 0; i < model_.layers.size(); ++i)
            layer(model_.layers[i], join_path("model.layers", i));
        mix(model_.output.mix, "model.output.mix", hidden());
        require(model_.output.head, "model.output.head", {model_.vocab_size, model_.d_model});
        everything_used();
    }

  private:
    // A parameter that is not per layer, of exactly this shape.
    void require(const std::string& name, const std::string& path, const std::vector<int64_t>& shape) {
        const ParamConfig& param = find(name, path);
        if (!param.layers.empty())
            report_.fail(path, "a per-layer parameter cannot serve here",
                         {in_quotes(name), "one without layers", ""});
        check_shape(param, path, shape);
    }

    // A per-layer parameter with an entry for this layer, each of this shape.
    void require(const std::string& name, const std::string& path, int64_t layer,
                 std::vector<int64_t> shape) {
        const ParamConfig& param = find(name, path);
        if (std::find(param.layers.begin(), param.layers.end(), layer) == param.layers.end())
            report_.fail(
                path, "parameter " + name + " has no entry for layer " + std::to_string(layer),
                {in_quotes(name),
                 param.layers.empty() ? "a parameter with layers" : "layers " + Json(param.layers).dump(),
                 ""});
        used_entries_.insert({name, layer});
        shape.insert(shape.begin(), param.shape[0]);
        check_shape(param, path, shape);
    }

    const ParamConfig& find(const std::string& name, const std::string& path) {
        Names names;
        for (const ParamConfig& param : model_.params) {
            if (param.name == name) return used_.insert(name), param;
            names.push_back(param.name);
        }
        report_.fail_name(path, "no parameter of that name", name, names);
    }

    void check_shape(const ParamConfig& param, const std::string& path, const std::vector<int64_t>& shape) {
        if (param.shape != shape)
            report_.fail(path, "parameter " + param.name + " has another shape than its use here",
                         {Json(param.shape).dump(), Json(shape).dump(), ""});
    }

    void input() {
        const auto& in = model_.input;
        require(in.token, "model.input.token", {model_.vocab_size, model_.d_model});
        if (!in.value_embeds.empty()) {
            const ParamConfig& bank = find(in.value_embeds, "model.input.value_embeds");
            require(in.value_embeds, "model.input.value_embeds",
                    {bank.shape[0], model_.vocab_size, model_.d_model});
            value_tables_ = bank.shape[0];
        }
        if (in.smear) {
            gate_dims(in.smear->gate, "model.input.smear.gate");
            require(in.smear->gate.param, "model.input.smear.gate.param", {1, in.smear->gate.input_dims});
            coefficient(in.smear->lambda);
        }
    }

    void gate_dims(const GateConfig& gate, const std::string& path) {
        if (gate.input_dims > model_.d_model)
            report_.fail(path + ".input_dims", "more channels than there are",
                         {std::to_string(gate.input_dims), "1 .. " + std::to_string(model_.d_model), ""});
    }

    void layer(const LayerConfig& layer, const std::string& path) {
        if (layer.skip_layer) return;
        mix(layer.entry, path + ".entry", hidden());
        mix(layer.before_attn, path + ".before_attn", hidden());
        Names names = hidden();
        if (layer.attn) {
            attention(*layer.attn, layer.index, path + ".attn");
            names.push_back("attn_out");
        }
        mix(layer.after_attn, path + ".after_attn", names);
        if (layer.mlp) {
            const std::vector<int64_t> shape{model_.d_model, model_.mlp_hidden};
            require(layer.mlp->fc, path + ".mlp.fc", layer.index, shape);
            require(layer.mlp->proj, path + ".mlp.proj", layer.index, shape);
            names.push_back("mlp_out");
        }
        mix(layer.after_mlp, path + ".after_mlp", names);
        branch_used(layer.attn.has_value(), "attn_out", {&layer.after_attn, &layer.after_mlp},
                    path + ".after_attn");
        branch_used(layer.mlp.has_value(), "mlp_out", {&layer.after_mlp}, path + ".after_mlp");
        if (!layer.cache.empty()) cache(layer.cache, path + ".cache");
    }

    void attention(const AttentionConfig& attn, int64_t layer, const std::string& path) {
        require(attn.param, path + ".param", layer, {4, model_.d_model, model_.d_model});
        Names sources{"v"};
        for (int64_t k = 0; k < value_tables_; ++k) sources.push_back("ve." + std::to_string(k));
        mix(attn.v_terms, path + ".v_terms", sources);
        if (!attn.out_gate) return;
        gate_dims(*attn.out_gate, path + ".out_gate");
        require(attn.out_gate->param, path + ".out_gate.param", layer,
                {model_.n_head, attn.out_gate->input_dims});
    }

    void mix(const std::vector<MixTerm>& terms, const std::string& path, const Names& allowed) {
        std::set<std::string> seen;
        for (size_t i = 0; i < terms.size(); ++i) {
            const std::string& source = terms[i].source;
            const std::string at = join_path(path, i) + "[1]";
            if (std::find(allowed.begin(), allowed.end(), source) == allowed.end())
                report_.fail_name(at, "no source of that name at this point", source, allowed);
            if (!seen.insert(source).second)
                report_.fail(at, "source listed twice", {in_quotes(source), "each once", ""});
            coefficient(terms[i].coefficient);
        }
    }

    void coefficient(const Coefficient& c) {
        if (!c.param.empty()) used_.insert(c.param);
    }

    void branch_used(bool present, const std::string& source,
                     const std::vector<const std::vector<MixTerm>*>& mixes, const std::string& path) {
        const auto has = [&](const auto* terms) {
            return std::any_of(terms->begin(), terms->end(),
                               [&](const MixTerm& t) { return t.source == source; });
        };
        if (present && std::none_of(mixes.begin(), mixes.end(), has))
            report_.fail(path, "the branch's output is computed but never used",
                         {"no term with " + in_quotes(source), "a term with it, or null for the branch", ""});
    }

    void cache(const std::string& name, const std::string& path) {
        static const Names reserved{"x", "x0", "v", "attn_out", "mlp_out"};
        const bool taken = std::find(reserved.begin(), reserved.end(), name) != reserved.end() ||
                           std::find(caches_.begin(), caches_.end(), name) != caches_.end();
        if (taken || !is_identifier(name))
            report_.fail(path, "not a name for a new source",
                         {in_quotes(name),
                          "letters, digits and _, unlike " + joined(reserved) + " and earlier caches", ""});
        caches_.push_back(name);
    }

    Names hidden() const {
        Names names{"x", "x0"};
        names.insert(names.end(), caches_.begin(), caches_.end());
        return names;
    }

    // A parameter that nothing reads would still be stored, initialised and optimised.
    void everything_used() {
        for (const ParamConfig& param : model_.params) {
            const std::string path = "model.params." + param.name;
            if (!used_.contains(param.name))
                report_.fail(path, "nothing in the model uses this parameter",
                             {"", "no such parameter (null)", ""});
            for (size_t i = 0; i < param.layers.size(); ++i)
                if (!used_entries_.contains({param.name, param.layers[i]}))
                    report_.fail(join_path(path + ".layers", i), "the layer does not use this parameter",
                                 {std::to_string(param.layers[i]), "the layers that do", ""});
        }
    }

    const ModelConfig& model_;
    const Report& report_;
    int64_t value_tables_ = 0;
    Names caches_;
    std::set<std::string> used_;
    std::set<std::pair<std::string, int64_t>> used_entries_;
};

}  // namespace

void validate_layers(const ModelConfig& model, const Report& report) {
    Walk(model, report).run();
}

}  // namespace speedrun
