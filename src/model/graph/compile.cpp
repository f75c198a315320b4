// From a config's model to its graph: input, layers, output, in the order of forward.
#include <algorithm>
#include <set>

#include "util/json_document.h"
#include "config/notation.h"
#include "model/graph/builder.h"
#include "model/nodes/attention.h"
#include "model/nodes/embed.h"
#include "model/nodes/head.h"
#include "model/nodes/linear.h"
#include "model/nodes/mix.h"
#include "model/nodes/mlp.h"
#include "model/nodes/rotary.h"
#include "model/nodes/smear.h"
#include "util/text.h"

namespace speedrun {
namespace {

class Compiler {
  public:
    Compiler(const Config& config, const Report& report)
        : build_(config, report), model_(config.model), report_(report) {}

    Graph run() {
        input();
        for (size_t i = 0; i < model_.layers.size(); ++i)
            layer(model_.layers[i], join_path("model.layers", i));
        set_x(mix(model_.output.mix, "model.output.mix", sources_));
        return build_.finish(build_.add<HeadNode>(build_.normed(x_, "model.output.norm")));
    }

  private:
    void set_x(ValueId x) { sources_["x"] = x_ = x; }

    void input() {
        const auto& in = model_.input;
        const WeightRef table = build_.whole(in.token, "model.input.token");
        ValueId e = build_.add<EmbedNode>("model.input.token", table, "model.input.token").output();
        if (in.smear) {
            const TermCoefficient coefficient = build_.term(*in.smear, {{"e", e}}, "model.input.smear");
            e = build_.add<SmearNode>("model.input.smear", e, coefficient).output();
        }
        set_x(build_.normed(e, "model.input.norm"));
        add_source("x0", x_);
        if (!in.value_embeds.empty()) value_embeds(build_.whole(in.value_embeds, "model.input.value_embeds"));
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

    void layer(const LayerConfig& layer, const std::string& path) {
        if (layer.skip_layer) return;
        set_x(mix(layer.entry, path + ".entry", sources_));
        set_x(mix(layer.before_attn, path + ".before_attn", sources_));
        Sources inside = sources_;
        if (layer.attn) inside["attn_out"] = attention(*layer.attn, path + ".attn");
        set_x(mix(layer.after_attn, path + ".after_attn", inside));
        if (layer.mlp) inside["mlp_out"] = mlp(*layer.mlp, path + ".mlp");
        inside["x"] = x_;
        set_x(mix(layer.after_mlp, path + ".after_mlp", inside));
        branch_used(layer.attn.has_value(), "attn_out", {&layer.after_attn, &layer.after_mlp},
                    path + ".after_attn");
        branch_used(layer.mlp.has_value(), "mlp_out", {&layer.after_mlp}, path + ".after_mlp");
        if (!layer.cache.empty()) cache(layer.cache, path + ".cache");
    }

    // x where there are no terms.
    ValueId mix(const std::vector<MixTerm>& terms, const std::string& path, const Sources& sources) {
        if (terms.empty()) return x_;
        std::set<std::string> seen;
        std::vector<MixNode::Term> resolved;
        for (size_t i = 0; i < terms.size(); ++i) {
            const std::string at = join_path(path, i);
            if (!seen.insert(terms[i].source).second)
                report_.fail(at + "[1]", "source listed twice",
                             {in_quotes(terms[i].source), "each once", ""});
            const ValueId source = find(sources, terms[i].source, at + "[1]");
            resolved.push_back({build_.term(terms[i].coefficient, sources, at + "[0]"), source});
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
        const ValueId a = build_.normed(x_, path + ".norm");
        Sources sources = sources_;
        sources.insert(value_sources_.begin(), value_sources_.end());
        sources["a"] = a;
        std::optional<TermCoefficient> out_gate;
        if (attn.out_gate) out_gate = build_.term(*attn.out_gate, sources, path + ".out_gate");
        const auto [q, k, v] = projections(attn, a, path);
        const ValueId q_turned = build_.add<RotaryNode>(path + ".q_rotary", q).output(),
                      k_turned = build_.add<RotaryNode>(path + ".k_rotary", k).output();
        const ValueId mixed = values(attn, v, path);
        ValueId y = build_.add<AttentionNode>(path, q_turned, k_turned, mixed, attn.window).output();
        if (out_gate)
            y = build_.add<MixNode>(path + ".out_gate", std::vector{MixNode::Term{*out_gate, y}}).output();
        return build_
            .add<LinearNode>(path + ".o", y, attn.o, MatrixLayout::out_in, model_.d_model,
                             StepPart::attention, path + ".o")
            .output();
    }

    struct Projections {
        ValueId q, k, v;
    };
    // Matrices that follow each other are multiplied at once.
    Projections projections(const AttentionConfig& attn, ValueId a, const std::string& path) {
        const std::array matrices{&attn.q, &attn.k, &attn.v};
        constexpr std::array names{".q", ".k", ".v"};
        const int64_t d = model_.d_model;
        std::array<ValueId, 3> found{};
        for (size_t first = 0; first < matrices.size();) {
            size_t end = first + 1;
            while (end < matrices.size() && follows(*matrices[end - 1], *matrices[end], d)) ++end;
            const auto count = static_cast<int64_t>(end - first);
            std::string name = path + ".";
            for (size_t i = first; i < end; ++i) name += names[i] + 1;
            check_matrices(std::span(matrices).subspan(first, end - first), path, names[first]);
            WeightRef weight = *matrices[first];
            weight.shape = {count * d, d};
            const ValueId whole = build_
                                      .add<LinearNode>(name, a, weight, MatrixLayout::out_in, count * d,
                                                       StepPart::attention, path + names[first])
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
        for (const WeightRef* matrix : matrices)
            if (matrix->param.empty() || matrix->shape != square)
                report_.fail(
                    path + name,
                    matrix->param.empty()
                        ? "no parameter is named"
                        : "parameter " + matrix->param + " has another shape than its use here",
                    {matrix->param.empty() ? "" : Json(matrix->shape).dump(), Json(square).dump(), ""});
    }

    ValueId values(const AttentionConfig& attn, ValueId v, const std::string& path) {
        if (attn.v_terms.empty()) return v;
        Sources sources = value_sources_;
        sources["v"] = v;
        std::swap(x_, v);  // a mix without terms
        const ValueId mixed = mix(attn.v_terms, path + ".v_terms", sources);
        std::swap(x_, v);
        return mixed;
    }

    ValueId mlp(const MlpConfig& mlp, const std::string& path) {
        return build_.add<MlpNode>(path, mlp, build_.normed(x_, path + ".norm")).output();
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
        static const std::set<std::string> reserved{"x", "x0", "v", "a", "e", "attn_out", "mlp_out"};
        if (reserved.contains(name) || sources_.contains(name) || !is_identifier(name))
            report_.fail(
                path, "not a name for a new source",
                {in_quotes(name),
                 "letters, digits and _, unlike x, x0, v, a, e, attn_out, mlp_out and earlier caches", ""});
        add_source(name, x_);
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
