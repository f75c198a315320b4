#include "model/graph/builder.h"

#include <algorithm>

#include "config/notation.h"
#include "model/nodes/gate.h"
#include "model/nodes/mix.h"
#include "model/nodes/norm.h"
#include "util/error.h"
#include "util/shape.h"
#include "util/text.h"

namespace speedrun {
namespace {

using Kind = Coefficient::Kind;

bool differs_by_token(const Coefficient& c) {
    return c.kind == Kind::gate || c.kind == Kind::output ||
           std::ranges::any_of(c.arguments, differs_by_token);
}

int64_t size_of(Dtype dtype) {
    return dtype == Dtype::bf16 ? 2 : 4;
}

std::vector<std::string> names_of(const Sources& sources) {
    std::vector<std::string> names;
    for (const auto& [name, id] : sources) names.push_back(name);
    return names;
}

}  // namespace

void collect_elements(const Coefficient& coefficient, std::vector<WeightRef>& found) {
    if (coefficient.kind == Kind::element) found.push_back(coefficient.weight);
    for (const Coefficient& argument : coefficient.arguments) collect_elements(argument, found);
}

int64_t GraphBuilder::grad_item(const WeightRef& weight) const {
    const bool all_fp32 = config_.numerics.params == NumericsConfig::Params::fp32;
    return all_fp32 ? 4 : size_of(model().param(weight.param).dtype);
}

int64_t GraphBuilder::used_item(const WeightUse& use) const {
    return use.kind == WeightUse::Kind::multiplied ? size_of(config_.numerics.activations)
                                                   : grad_item(use.weight);
}

ValueId GraphBuilder::declare(Node& node, const std::string& name, int64_t channels, Value::Element element) {
    graph_.values_.push_back({.name = name, .channels = channels, .element = element});
    const auto id = static_cast<ValueId>(graph_.values_.size()) - 1;
    node.outputs_.push_back(id);
    return id;
}

ValueId GraphBuilder::declare_part(const std::string& name, ValueId whole, int64_t first, int64_t channels) {
    graph_.values_.push_back({.name = name, .channels = channels, .whole = whole, .first = first});
    return static_cast<ValueId>(graph_.values_.size()) - 1;
}

void GraphBuilder::sum_gradients(ValueId id) {
    graph_.values_[static_cast<size_t>(id)].summed = true;
}

void GraphBuilder::read(Node& node, ValueId id, Read how) {
    const auto found = std::ranges::find(graph_.nodes_, &node, [](const auto& one) { return one.get(); });
    const auto index = static_cast<int>(found - graph_.nodes_.begin());  // one being built comes next
    if (std::ranges::find(node.inputs_, id) == node.inputs_.end()) node.inputs_.push_back(id);
    Value* value = &graph_.values_[static_cast<size_t>(id)];
    if (value->whole >= 0) value = &graph_.values_[static_cast<size_t>(value->whole)];
    value->last_forward_reader = std::max(value->last_forward_reader, index);
    value->kept_for_backward = value->kept_for_backward || how == Read::forward_and_backward;
}

WeightRef GraphBuilder::whole(const std::string& param, const std::string& path) const {
    std::vector<std::string> names;
    for (const ParamConfig& one : model().params) {
        names.push_back(one.name);
        if (one.name != param) continue;
        if (!one.layers.empty())
            report_.fail(path, "a per-layer parameter cannot serve here",
                         {in_quotes(param), "one without layers", ""});
        return {param, 0, one.shape};
    }
    report_.fail_name(path, "no parameter of that name", param, names);
}

void GraphBuilder::use(Node& node, const WeightRef& weight, WeightUse::Kind kind,
                       const std::vector<int64_t>& shape, const std::string& path) {
    if (weight.param.empty())
        report_.fail(path, "no parameter is named", {"", "one of " + Json(shape).dump(), ""});
    if (product(weight.shape) != product(shape) ||
        (weight.shape.size() == shape.size() && weight.shape != shape))
        report_.fail(path, "parameter " + weight.param + " has another shape than its use here",
                     {Json(weight.shape).dump(), Json(shape).dump(), ""});
    node.weights_.push_back({{weight.param, weight.begin, shape}, kind});
}

int64_t GraphBuilder::in_fp8(Fp8Weight weight) {
    graph_.fp8_weights_.push_back(std::move(weight));
    return std::ssize(graph_.fp8_weights_) - 1;
}

int64_t GraphBuilder::add_scalars(Node& node, std::span<const Coefficient> coefficients) {
    const auto first = static_cast<int64_t>(graph_.scalars_.size());
    for (const Coefficient& coefficient : coefficients) {
        graph_.scalars_.push_back(coefficient);
        std::vector<WeightRef> elements;
        collect_elements(coefficient, elements);
        for (WeightRef& element : elements)
            node.weights_.push_back({std::move(element), WeightUse::Kind::element});
    }
    return first;
}

bool GraphBuilder::trainable(int64_t scalar) const {
    std::vector<WeightRef> elements;
    collect_elements(graph_.scalars_[static_cast<size_t>(scalar)], elements);
    return !elements.empty();
}

ValueId GraphBuilder::normed(ValueId value, const std::string& name) {
    const auto [found, is_new] = normed_.emplace(value, -1);
    if (!is_new) return found->second;
    const auto mix = mixes_.find(value);
    found->second = mix != mixes_.end() ? mix->second->normed(*this) : add<NormNode>(name, value).output();
    return found->second;
}

ValueId GraphBuilder::gate(const Coefficient& gate, Kind activation, const Sources& sources,
                           const std::string& path) {
    std::vector<GateNode::Input> inputs;
    std::vector<std::pair<ValueId, int64_t>> key;
    for (const ChannelRange& range : gate.channels) {
        const auto source = sources.find(range.source);
        if (source == sources.end())
            report_.fail_name(path, "no source of that name at this point", range.source, names_of(sources));
        if (range.count > value(source->second).channels)
            report_.fail(
                path, "the gate reads more channels than there are",
                {std::to_string(range.count), "1 .. " + std::to_string(value(source->second).channels), ""});
        inputs.push_back({source->second, range.count});
        key.emplace_back(source->second, range.count);
    }
    if (inputs.size() > 2) report_.fail(path, "a gate reads two sources at most", {});
    const auto [found, is_new] =
        gates_.emplace(GateKey{gate.weight.param, gate.weight.begin, key, activation}, -1);
    if (!is_new) return found->second;
    const auto form = activation == Kind::sigmoid ? ops::Activation::sigmoid
                      : activation == Kind::tanh  ? ops::Activation::tanh
                                                  : ops::Activation::identity;
    found->second =
        add<GateNode>(path + "." + gate.weight.param, gate.weight, std::move(inputs), form, path).output();
    return found->second;
}

TokenFactor GraphBuilder::output_of_net(const Coefficient& output, double offset, const std::string& path) {
    const auto net = nets_.find(output.net);
    if (net == nets_.end())
        report_.fail(path, "the net is evaluated later than here",
                     {in_quotes(output.net), "a net of an earlier layer, or of this one's entry", ""});
    used_nets_.insert(output.net);
    return {.value = net->second, .first = output.begin, .columns = output.count, .offset = offset};
}

TokenFactor GraphBuilder::outputs_of_net(const Coefficient& coefficient, int64_t count,
                                         const std::string& path) {
    if (coefficient.kind != Kind::output || coefficient.count != count)
        report_.fail(path, "not a number for each head",
                     {format_coefficient(coefficient, model()).dump(),
                      "NET[begin:end], " + std::to_string(count) + " outputs of one of model.coef_nets", ""});
    return output_of_net(coefficient, 0, path);
}

// offset + gate, offset + sigmoid(gate), offset + tanh(gate) or offset + outputs of a net
TokenFactor GraphBuilder::token_factor(const Coefficient& factor, const Sources& sources,
                                       const std::string& path) {
    const auto fail = [&] {
        report_.fail(path, "what differs from token to token is too much of an expression",
                     {"",
                      "a product of scalars and one gate, its sigmoid or tanh, or outputs of a net, a number "
                      "added or not",
                      ""});
    };
    const Coefficient* inner = &factor;
    double offset = 0;
    if (factor.kind == Kind::sum) {
        inner = nullptr;
        for (const Coefficient& term : factor.arguments) {
            if (term.kind == Kind::number)
                offset += term.number;
            else if (std::exchange(inner, &term) != nullptr)
                fail();
        }
    }
    if (inner && inner->kind == Kind::output) return output_of_net(*inner, offset, path);
    const bool function = inner && (inner->kind == Kind::sigmoid || inner->kind == Kind::tanh);
    const Coefficient* gated = function ? &inner->arguments.front() : inner;
    if (!gated || gated->kind != Kind::gate) fail();
    const ValueId id = gate(*gated, function ? inner->kind : Kind::gate, sources, path);
    return {.value = id, .first = 0, .columns = value(id).channels, .offset = offset};
}

TermCoefficient GraphBuilder::term(const Coefficient& coefficient, const Sources& sources,
                                   const std::string& path) {
    if (!differs_by_token(coefficient)) return {coefficient, {}};
    const std::vector<Coefficient> factors =
        coefficient.kind == Kind::product ? coefficient.arguments : std::vector{coefficient};
    std::vector<Coefficient> scalars;
    const Coefficient* by_token = nullptr;
    for (const Coefficient& factor : factors) {
        if (!differs_by_token(factor))
            scalars.push_back(factor);
        else if (std::exchange(by_token, &factor) != nullptr)
            report_.fail(path, "two factors differ from token to token", {"", "one", ""});
    }
    return {product_of(std::move(scalars)), token_factor(*by_token, sources, path)};
}

// A parameter that nothing reads would still be stored, initialised and optimised.
void GraphBuilder::check_used() const {
    std::map<std::string, std::vector<std::pair<int64_t, int64_t>>> used;
    for (const auto& node : graph_.nodes_)
        for (const WeightUse& use : node->weights())
            used[use.weight.param].emplace_back(use.weight.begin,
                                                use.weight.begin + product(use.weight.shape).value_or(0));
    for (const ParamConfig& param : model().params) {
        const std::string path = "model.params." + param.name;
        if (!used.contains(param.name))
            report_.fail(path, "nothing in the model uses this parameter",
                         {"", "no such parameter (null)", ""});
        const int64_t entry = product(param.shape).value_or(0) / param.shape[0];
        for (size_t i = 0; i < param.layers.size(); ++i) {
            const int64_t size = entry * param.entries_per_layer, begin = static_cast<int64_t>(i) * size;
            if (std::ranges::none_of(used[param.name], [&](const auto& range) {
                    return range.first < begin + size && begin < range.second;
                }))
                report_.fail(join_path(path + ".layers", i), "the layer does not use this parameter",
                             {std::to_string(param.layers[i]), "the layers that do", ""});
        }
    }
}

Graph GraphBuilder::finish(const HeadNode& head) {
    check_used();
    for (const auto& [net, outputs] : nets_)
        if (!used_nets_.contains(net))
            report_.fail("model.coef_nets." + net, "no coefficient reads an output of the net",
                         {"", "no such net (null)", ""});
    graph_.head_ = &head;
    return std::move(graph_);
}

}  // namespace speedrun
