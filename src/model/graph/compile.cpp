// From a config's model to its graph: input, layers, output, in the order of forward.
#include <algorithm>
#include <set>

#include "config/notation.h"
#include "model/graph/builder.h"
#include "model/nodes/attention.h"
#include "model/nodes/bigram.h"
#include "model/nodes/coef_net.h"
#include "model/nodes/dynamic_composition.h"
#include "model/nodes/embed.h"
#include "model/nodes/gain.h"
#include "model/nodes/head.h"
#include "model/nodes/key_offset.h"
#include "model/nodes/linear.h"
#include "model/nodes/mix.h"
#include "model/nodes/mlp.h"
#include "model/nodes/rotary.h"
#include "model/nodes/smear.h"
#include "model/nodes/xsa.h"
#include "util/json_document.h"
#include "util/text.h"

namespace speedrun {
namespace {

class Compiler {
  public:
    Compiler(const Config& config, const Report& report)
        : build_(config, report), model_(config.model), report_(report) {}

    Graph run() {
        check_nets();
        input();
        for (size_t i = 0; i < model_.layers.size(); ++i)
            layer(model_.layers[i], join_path("model.layers", i));
        nets(-1);
        set_x(mix(model_.output.mix, "model.output.mix", all_sources()));
        const ValueId last = normed(x_, model_.output.norm_gain, "model.output");
        return build_.finish(build_.add<HeadNode>(last));
    }

  private:
    void set_x(ValueId x) { sources_["x"] = x_ = x; }

    void input() {
        const auto& in = model_.input;
        ValueId e = token_embedding();
        if (in.smear) {
            const TermCoefficient coefficient = build_.term(*in.smear, {{"e", e}}, "model.input.smear");
            e = build_.add<SmearNode>("model.input.smear", e, coefficient).output();
        }
        set_x(normed(e, in.norm_gain, "model.input"));
        add_source("x0", x_);
        if (!in.value_embeds.empty()) value_embeds(build_.whole(in.value_embeds, "model.input.value_embeds"));
        if (in.bigram) bigram(*in.bigram);
        nets(0);
        set_x(mix(in.init, "model.input.init", sources_));
    }

    ValueId token_embedding() {
        const auto& in = model_.input;
        const std::string path = "model.input.token";
        const WeightRef table = build_.whole(in.token, path);
        if (in.tied_to.empty()) return build_.add<EmbedNode>(path, table, path).output();
        const WeightRef tied_to = build_.whole(in.tied_to, "model.input.tied_to");
        return build_.add<EmbedNode>(path, table, tied_to, path).output();
    }

    void bigram(const Bigram& bigram) {
        add_source("x0_bigram", build_.add<BigramNode>(bigram, "model.input.bigram").output());
    }

    // The bank [n, vocab_size, d_model] behind ve.0, ve.1, ...
    void value_embeds(const WeightRef& bank) {
        const std::string path = "model.input.value_embeds";
        const std::vector<int64_t> table{model_.vocab_size, model_.d_model};
        if (bank.shape.size() != 3 || std::vector(bank.shape.begin() + 1, bank.shape.end()) != table)
            report_.fail(path, "parameter " + bank.param + " has another shape than its use here",
                         {Json(bank.shape).dump(), "[n,vocab_size,d_model]", ""});
        for (int64_t k = 0; k < bank.shape[0]; ++k) {
            const std::string name = "ve." + std::to_string(k);
            const WeightRef one{bank.param, k * table[0] * table[1], table};
            value_sources_[name] =
                build_.add<EmbedNode>(join_path(path, static_cast<size_t>(k)), one, path).output();
            build_.name(name, value_sources_[name]);
        }
    }

    static std::string path_of(const CoefNet& net) { return "model.coef_nets." + net.name; }

    void check_nets() const {
        for (const CoefNet& net : model_.coef_nets) {
            const std::string path = path_of(net);
            if (!is_identifier(net.name) ||
                std::ranges::find(model_.params, net.name, &ParamConfig::name) != model_.params.end())
                report_.fail(path, "not a name for a net",
                             {in_quotes(net.name), "letters, digits and _, unlike each parameter", ""});
            const int64_t at = net.entry_of_layer;
            if (at >= std::ssize(model_.layers) ||
                (at >= 0 && model_.layers[static_cast<size_t>(at)].skip_layer))
                report_.fail(path + ".entry_of_layer", "no layer that anything enters",
                             {std::to_string(at), "-1, or the index of a layer that is not skipped", ""});
        }
    }

    // Those that are evaluated on entering this layer; 0: before model.input.init, where x is x0; -1: after
    // the last layer.
    void nets(int64_t entry_of_layer) {
        for (const CoefNet& net : model_.coef_nets) {
            if (net.entry_of_layer != entry_of_layer) continue;
            const std::string path = path_of(net);
            const ValueId input = net.input.empty() ? x_ : find(sources_, net.input, path + ".input");
            build_.evaluated(net.name, build_.add<CoefNetNode>(net, input, path).output());
        }
    }

    void layer(const LayerConfig& layer, const std::string& path) {
        if (layer.skip_layer) return;
        if (!layer.cache_entry.empty()) cache(layer.cache_entry, path + ".cache_entry");
        if (layer.index > 0) nets(layer.index);
        const LaneConfig lane = layer.lane1.value_or(LaneConfig{});
        advance(layer.entry, lane.entry, path, ".entry", {});
        advance(layer.before_attn, {}, path, ".before_attn", {});
        Sources branches;
        if (layer.attn) branches["attn_out"] = attention(*layer.attn, path + ".attn");
        advance(layer.after_attn, lane.after_attn, path, ".after_attn", branches);
        if (!layer.cache_after_attn.empty()) cache(layer.cache_after_attn, path + ".cache_after_attn");
        if (layer.mlp) branches["mlp_out"] = mlp(*layer.mlp, path + ".mlp");
        advance(layer.after_mlp, lane.after_mlp, path, ".after_mlp", branches);
        branch_used(layer.attn.has_value(), "attn_out",
                    {&layer.after_attn, &lane.after_attn, &layer.after_mlp, &lane.after_mlp},
                    path + ".after_attn");
        branch_used(layer.mlp.has_value(), "mlp_out", {&layer.after_mlp, &lane.after_mlp},
                    path + ".after_mlp");
        if (!layer.cache.empty()) cache(layer.cache, path + ".cache");
    }

    // The mixes of one place of a layer; both read the streams as they were.
    void advance(const std::vector<MixTerm>& x_terms, const std::vector<MixTerm>& lane_terms,
                 const std::string& path, const char* place, const Sources& branches) {
        Sources sources = sources_;
        sources.insert(branches.begin(), branches.end());
        const ValueId x = mix(x_terms, path + place, sources);
        if (!lane_terms.empty()) sources_["lane1"] = mix(lane_terms, path + ".lane1" + place, sources);
        set_x(x);
    }

    // x where there are no terms.
    ValueId mix(const std::vector<MixTerm>& terms, const std::string& path, const Sources& sources) {
        return mix(terms, path, sources, sources);
    }
    ValueId mix(const std::vector<MixTerm>& terms, const std::string& path, const Sources& sources,
                const Sources& gate_sources) {
        if (terms.empty()) return x_;
        std::set<std::string> seen;
        std::vector<MixNode::Term> resolved;
        for (size_t i = 0; i < terms.size(); ++i) {
            const std::string at = join_path(path, i);
            if (!seen.insert(terms[i].source).second)
                report_.fail(at + "[1]", "source listed twice",
                             {in_quotes(terms[i].source), "each once", ""});
            const ValueId source = find(sources, terms[i].source, at + "[1]");
            resolved.push_back({build_.term(terms[i].coefficient, gate_sources, at + "[0]"), source});
        }
        if (terms.size() > MixNode::most_terms)
            report_.fail(
                path, "too many terms",
                {std::to_string(terms.size()), "at most " + std::to_string(MixNode::most_terms), ""});
        if (resolved.size() == 1 && resolved.front().coefficient.is_one()) return resolved.front().source;
        return build_.add<MixNode>(path, resolved).output();
    }

    ValueId find(const Sources& sources, const std::string& name, const std::string& path) const {
        const auto found = sources.find(name);
        if (found != sources.end()) return found->second;
        std::vector<std::string> names;
        for (const auto& [one, id] : sources) names.push_back(one);
        report_.fail_name(path, "no source of that name at this point", name, names);
    }

    // Gates come before the products, so that their gradients are added to those that products write.
    ValueId attention(const AttentionConfig& attn, const std::string& path) {
        check_kind(attn, path);
        const ValueId a = normed_input(attn.input, attn.norm_gain, path);
        Sources sources = all_sources();
        sources["a"] = a;
        std::optional<TermCoefficient> out_gate;
        if (attn.out_gate) out_gate = build_.term(*attn.out_gate, sources, path + ".out_gate");
        // Those of the values too; values() finds them again.
        for (size_t i = 0; i < attn.v_terms.size(); ++i)
            build_.term(attn.v_terms[i].coefficient, sources, join_path(path + ".v_terms", i) + "[0]");
        const auto [q, k, v] = projections(attn, a, path);
        const ValueId q_turned = build_.add<RotaryNode>(path + ".q_rotary", q, attn.kind).output();
        ValueId k_turned = build_.add<RotaryNode>(path + ".k_rotary", k, attn.kind).output();
        if (!attn.key_offset.empty())
            k_turned = build_.add<KeyOffsetNode>(path + ".key_offset", k_turned, attn.key_offset).output();
        const ValueId mixed = values(attn, v, sources, path);
        ValueId y =
            build_.add<AttentionNode>(path, q_turned, k_turned, mixed, attn.window, attn.kind).output();
        if (attn.dc) y = compose(*attn.dc, {q_turned, k_turned, mixed, y}, path + ".dc");
        if (attn.xsa) y = build_.add<XsaNode>(path + ".xsa", y, mixed, *attn.xsa).output();
        if (out_gate)
            y = build_.add<MixNode>(path + ".out_gate", std::vector{MixNode::Term{*out_gate, y}}).output();
        return build_
            .add<LinearNode>(path + ".o", y, attn.o, MatrixLayout::out_in, model_.d_model,
                             StepPart::attention, path + ".o", attn.o_bias)
            .output();
    }

    ValueId compose(const DynamicComposition& dc, const DynamicCompositionNode::Heads& heads,
                    const std::string& path) {
        const TokenFactor w1 = build_.outputs_of_net(*dc.w1, model_.n_head, path + ".w1"),
                          w2 = build_.outputs_of_net(*dc.w2, model_.n_head, path + ".w2");
        return build_.add<DynamicCompositionNode>(path, heads, dc.window, w1, w2).output();
    }

    void check_kind(const AttentionConfig& attn, const std::string& path) const {
        if (attn.kind == AttentionConfig::Kind::causal) return;
        if (model_.n_head % 2 != 0)
            report_.fail(path + ".kind", "heads are paired two by two",
                         {std::to_string(model_.n_head) + " heads", "an even model.n_head", ""});
        if (!attn.key_offset.empty())
            report_.fail(path + ".key_offset", "paired heads have none", {"", "absent", ""});
        if (attn.xsa) report_.fail(path + ".xsa", "paired heads have none", {"", "absent", ""});
        if (attn.dc) report_.fail(path + ".dc", "paired heads have none", {"", "absent", ""});
    }

    struct Projections {
        ValueId q, k, v;
    };
    // Matrices that follow each other are multiplied at once, unless one has a bias.
    Projections projections(const AttentionConfig& attn, ValueId a, const std::string& path) {
        const std::array matrices{&attn.q, &attn.k, &attn.v};
        const std::array biases{&attn.q_bias, &attn.k_bias, &attn.v_bias};
        const bool biased =
            std::ranges::any_of(biases, [](const WeightRef* bias) { return !bias->param.empty(); });
        constexpr std::array names{".q", ".k", ".v"};
        const int64_t d = model_.d_model;
        std::array<ValueId, 3> found{};
        for (size_t first = 0; first < matrices.size();) {
            size_t end = first + 1;
            // Paired heads read their values as twice as many rows, which parts of rows cannot be.
            const size_t most =
                attn.kind == AttentionConfig::Kind::paired && attn.v_terms.empty() && first < 2
                    ? 2
                    : matrices.size();
            while (!biased && end < most && follows(*matrices[end - 1], *matrices[end], d)) ++end;
            const auto count = static_cast<int64_t>(end - first);
            std::string name = path + ".";
            for (size_t i = first; i < end; ++i) name += names[i] + 1;
            check_matrices(std::span(matrices).subspan(first, end - first), path, names[first]);
            WeightRef weight = *matrices[first];
            weight.shape = {count * d, d};
            const ValueId whole =
                build_
                    .add<LinearNode>(name, a, weight, MatrixLayout::out_in, count * d, StepPart::attention,
                                     path + names[first], *biases[first])
                    .output();
            for (size_t i = first; i < end; ++i)
                found[i] = count == 1 ? whole
                                      : build_.declare_part(path + names[i], whole,
                                                            static_cast<int64_t>(i - first) * d, d);
            first = end;
        }
        return {found[0], found[1], found[2]};
    }

    static bool follows(const WeightRef& before, const WeightRef& after, int64_t d) {
        return before.param == after.param && after.begin == before.begin + d * d;
    }

    void check_matrices(std::span<const WeightRef* const> matrices, const std::string& path,
                        const char* name) {
        const std::vector<int64_t> square{model_.d_model, model_.d_model};
        // Several entries that follow each other are one matrix too: "qk_bank[0:3]".
        const auto is_square = [&](const std::vector<int64_t>& shape) {
            return !shape.empty() && shape.back() == model_.d_model && product(shape) == product(square);
        };
        for (const WeightRef* matrix : matrices)
            if (matrix->param.empty() || !is_square(matrix->shape))
                report_.fail(
                    path + name,
                    matrix->param.empty()
                        ? "no parameter is named"
                        : "parameter " + matrix->param + " has another shape than its use here",
                    {matrix->param.empty() ? "" : Json(matrix->shape).dump(), Json(square).dump(), ""});
    }

    // Gates in the coefficients may read what those of the output may.
    ValueId values(const AttentionConfig& attn, ValueId v, const Sources& gate_sources,
                   const std::string& path) {
        if (attn.v_terms.empty()) return v;
        Sources sources = all_sources();
        sources["v"] = v;
        return mix(attn.v_terms, path + ".v_terms", sources, gate_sources);
    }

    ValueId mlp(const MlpConfig& mlp, const std::string& path) {
        return build_.add<MlpNode>(path, mlp, normed_input(mlp.input, mlp.norm_gain, path)).output();
    }

    // What a branch reads: the norm of a source, of x where it names none.
    ValueId normed_input(const std::string& source, const WeightRef& gain, const std::string& path) {
        return normed(source.empty() ? x_ : find(sources_, source, path + ".input"), gain, path);
    }

    ValueId normed(ValueId value, const WeightRef& gain, const std::string& path) {
        const ValueId normed = build_.normed(value, path + ".norm");
        if (gain.param.empty()) return normed;
        return build_.add<GainNode>(path + ".norm_gain", normed, gain).output();
    }

    void branch_used(bool present, const std::string& source,
                     const std::vector<const std::vector<MixTerm>*>& mixes, const std::string& path) const {
        const auto has = [&](const auto* terms) {
            return std::ranges::any_of(*terms, [&](const MixTerm& t) { return t.source == source; });
        };
        if (present && std::ranges::none_of(mixes, has))
            report_.fail(path, "the branch's output is computed but never used",
                         {"no term with " + in_quotes(source), "a term with it, or null for the branch", ""});
    }

    void cache(const std::string& name, const std::string& path) {
        static const std::set<std::string> reserved{"x", "lane1", "x0",       "x0_bigram", "v",
                                                    "a", "e",     "attn_out", "mlp_out"};
        if (reserved.contains(name) || sources_.contains(name) || !is_identifier(name))
            report_.fail(path, "not a name for a new source",
                         {in_quotes(name),
                          "letters, digits and _, unlike x, lane1, x0, x0_bigram, v, a, e, attn_out, mlp_out "
                          "and earlier caches",
                          ""});
        add_source(name, x_);
    }

    // Those of the stream, and value embeddings.
    Sources all_sources() const {
        Sources sources = sources_;
        sources.insert(value_sources_.begin(), value_sources_.end());
        return sources;
    }

    void add_source(const std::string& name, ValueId id) {
        sources_[name] = id;
        build_.name(name, id);
    }

    GraphBuilder build_;
    const ModelConfig& model_;
    const Report& report_;
    ValueId x_ = -1;
    Sources sources_;        // what mixes of the stream may name
    Sources value_sources_;  // ve.0, ve.1, ...
};

}  // namespace

Graph::Graph() = default;
Graph::~Graph() = default;
Graph::Graph(Graph&&) noexcept = default;
Graph& Graph::operator=(Graph&&) noexcept = default;

bool Graph::multiplies(const std::string& param) const {
    return std::ranges::any_of(nodes_, [&](const auto& node) {
        return std::ranges::any_of(node->weights(), [&](const WeightUse& use) {
            return use.weight.param == param && use.kind == WeightUse::Kind::multiplied;
        });
    });
}

Graph compile(const Config& config, const Origins& origins) {
    const Report report(origins);
    return Compiler(config, report).run();
}

}  // namespace speedrun
