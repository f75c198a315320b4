// Text of coefficients; the grammar is in config/coefficient.h.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "config/notation.h"
#include "config/origins.h"
#include "config/weight_notation.h"
#include "util/error.h"
#include "util/text.h"

namespace speedrun {
namespace {

using Kind = Coefficient::Kind;

constexpr int most_depth = 16;

class Parser {
  public:
    Parser(std::string_view text, const NotationScope& scope) : rest_(text), scope_(scope) {}

    Coefficient whole() {
        Coefficient found = sum();
        if (!rest_.empty()) fail("no coefficient");
        return found;
    }

  private:
    [[noreturn]] static void fail(const std::string& what) {
        throw NotationError{what, coefficient_allowed, ""};
    }

    bool take(char c) {
        if (!rest_.starts_with(c)) return false;
        rest_.remove_prefix(1);
        return true;
    }
    bool take(std::string_view word) {
        if (!rest_.starts_with(word)) return false;
        rest_.remove_prefix(word.size());
        return true;
    }

    Coefficient sum() {
        if (++depth_ > most_depth) fail("too deep");
        std::vector<Coefficient> terms;
        bool negative = take('-');
        for (bool more = true; more;) {
            Coefficient term = product();
            terms.push_back(negative ? product_of({{.number = -1}, std::move(term)}) : std::move(term));
            negative = take('-');
            more = negative || take('+');
        }
        --depth_;
        if (terms.size() == 1) return std::move(terms.front());
        return {.kind = Kind::sum, .arguments = std::move(terms)};
    }

    Coefficient product() {
        std::vector<Coefficient> factors{factor()};
        while (take('*')) factors.push_back(factor());
        return product_of(std::move(factors));
    }

    Coefficient factor() {
        if (take("sigmoid(")) return function(Kind::sigmoid);
        if (take("tanh(")) return function(Kind::tanh);
        if (take('(')) return inside();
        double number = 0;
        const auto [stop, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), number);
        const bool starts_number =
            !rest_.empty() && (rest_.front() == '.' || std::isdigit(rest_.front()) != 0);
        if (error == std::errc{} && starts_number) {
            rest_.remove_prefix(static_cast<size_t>(stop - rest_.data()));
            return {.number = number};
        }
        return named();
    }

    Coefficient inside() {
        Coefficient found = sum();
        if (!take(')')) fail("no coefficient: a bracket is open");
        return found;
    }
    Coefficient function(Kind kind) { return {.kind = kind, .arguments = {inside()}}; }

    Coefficient named() {
        if (rest_.empty()) fail("no coefficient");
        const IndexedName name = take_indexed_name(rest_);
        if (rest_.starts_with('@')) return gate(name);
        const auto net = std::ranges::find(scope_.model.coef_nets, name.name, &CoefNet::name);
        return net == scope_.model.coef_nets.end() ? element(name) : output(*net, name.indices);
    }

    // "m0[3]", "m0[6:8]"
    Coefficient output(const CoefNet& net, const std::vector<std::string>& indices) const {
        if (indices.size() != 1)
            throw NotationError{"wrong number of indices", "one, or a range, of the outputs of " + net.name,
                                ""};
        if (net.outputs() == 0)
            throw NotationError{"net " + net.name + " has no outputs", "a net whose w2 has two dimensions",
                                ""};
        const IndexRange range = parse_index(indices[0], net.outputs(), scope_, true);
        return {
            .kind = Kind::output, .net = net.name, .begin = range.begin, .count = range.end - range.begin};
    }

    Coefficient gate(const IndexedName& name) {
        Coefficient found{.kind = Kind::gate};
        std::string text = name.name;
        for (size_t i = 0; i < name.indices.size(); ++i) text += (i == 0 ? "[" : ",") + name.indices[i];
        if (!name.indices.empty()) text += "]";
        found.weight = parse_weight(text, scope_);
        for (bool more = take('@'); more; more = take('|')) {
            const IndexedName source = take_indexed_name(rest_);
            if (source.indices.size() != 1 || !source.indices[0].starts_with(':'))
                fail("a gate reads the first channels of sources");
            const IndexRange end =
                parse_index(source.indices[0].substr(1), scope_.model.d_model + 1, {scope_.model, {}}, false);
            found.channels.push_back({source.name, 0, end.begin});
        }
        return found;
    }

    // "scalars.skip[0]", "x0_lambdas[i]"
    Coefficient element(const IndexedName& name) {
        const size_t dot = name.name.find('.');
        const ParamConfig& param = find_param(name.name.substr(0, dot), scope_.model);
        if (dot == std::string::npos && param.slices.empty())
            return {.kind = Kind::element, .weight = weight_at(param, name.indices, scope_)};
        return {
            .kind = Kind::element,
            .weight = slice(param, dot == std::string::npos ? "" : name.name.substr(dot + 1), name.indices)};
    }

    WeightRef slice(const ParamConfig& param, const std::string& wanted,
                    const std::vector<std::string>& indices) {
        std::vector<std::string> names;
        for (const Slice& one : param.slices) {
            names.push_back(one.name);
            if (one.name != wanted) continue;
            if (indices.size() != one.shape.size())
                throw NotationError{"wrong number of indices",
                                    std::to_string(one.shape.size()) + " for " + param.name + "." + one.name,
                                    ""};
            int64_t flat = 0;
            for (size_t d = 0; d < one.shape.size(); ++d)
                flat = flat * one.shape[d] + parse_index(indices[d], one.shape[d], scope_, false).begin;
            return {param.name, one.at + flat, {}};
        }
        const std::string what = wanted.empty()
                                     ? param.name + " has slices, and none is named"
                                     : "no slice of " + param.name + " is called " + in_quotes(wanted);
        throw NotationError{what, names.empty() ? "none is declared" : joined(names),
                            nearest_name(wanted, names)};
    }

    std::string_view rest_;
    const NotationScope& scope_;
    int depth_ = 0;
};

std::string number_text(double number) {
    std::array<char, 32> buffer{};
    const auto [end, error] = std::to_chars(buffer.data(), buffer.data() + buffer.size(), number);
    check(error == std::errc{}, "a number longer than its buffer");
    return {buffer.data(), end};
}

std::string text_of(const Coefficient& c, const ModelConfig& model);

std::string element_text(const WeightRef& weight, const ModelConfig& model) {
    for (const Slice& slice : model.param(weight.param).slices) {
        int64_t rest = weight.begin - slice.at;
        if (rest < 0 || rest >= product(slice.shape).value_or(0)) continue;
        std::string indices;
        for (auto size = slice.shape.rbegin(); size != slice.shape.rend(); ++size) {
            indices = std::to_string(rest % *size) + (indices.empty() ? "" : ",") + indices;
            rest /= *size;
        }
        return weight.param + "." + slice.name + (indices.empty() ? "" : "[" + indices + "]");
    }
    return format_weight(weight, model);
}

std::string gate_text(const Coefficient& c, const ModelConfig& model) {
    std::string text = format_weight(c.weight, model);
    for (const ChannelRange& range : c.channels)
        text += (&range == &c.channels.front() ? "@" : "|") + range.source +
                "[:" + std::to_string(range.count) + "]";
    return text;
}

std::string sum_text(const Coefficient& c, const ModelConfig& model) {
    std::string text;
    for (const Coefficient& term : c.arguments) {
        const std::string one = text_of(term, model);
        text += (text.empty() || one.starts_with('-') ? "" : "+") + one;
    }
    return text;
}

std::string product_text(const Coefficient& c, const ModelConfig& model) {
    std::string text;
    for (const Coefficient& factor : c.arguments) {
        if (&factor == &c.arguments.front() && factor.kind == Kind::number && factor.number == -1) {
            text = "-";
            continue;
        }
        const std::string one = text_of(factor, model);
        text += (text.empty() || text == "-" ? "" : "*") + (factor.kind == Kind::sum ? "(" + one + ")" : one);
    }
    return text;
}

std::string text_of(const Coefficient& c, const ModelConfig& model) {
    switch (c.kind) {
        case Kind::number:
            return number_text(c.number);
        case Kind::element:
            return element_text(c.weight, model);
        case Kind::gate:
            return gate_text(c, model);
        case Kind::output:
            return c.net + (c.count == 1 ? fmt::format("[{}]", c.begin)
                                         : fmt::format("[{}:{}]", c.begin, c.begin + c.count));
        case Kind::sum:
            return sum_text(c, model);
        case Kind::product:
            return product_text(c, model);
        case Kind::sigmoid:
            return "sigmoid(" + text_of(c.arguments[0], model) + ")";
        case Kind::tanh:
            return "tanh(" + text_of(c.arguments[0], model) + ")";
    }
    return {};
}

}  // namespace

Coefficient parse_coefficient(const Json& value, const NotationScope& scope) {
    if (value.is_number()) return {.number = value.get<double>()};
    if (!value.is_string()) throw NotationError{"no coefficient", coefficient_allowed, ""};
    const auto& text = value.get_ref<const std::string&>();
    if (text.size() > 1000) throw NotationError{"too long", "at most 1000 characters", ""};
    return Parser(text, scope).whole();
}

Json format_coefficient(const Coefficient& coefficient, const ModelConfig& model) {
    if (coefficient.kind == Kind::number) return coefficient.number;
    return text_of(coefficient, model);
}

}  // namespace speedrun
