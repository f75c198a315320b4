#include "config/weight_notation.h"

#include <algorithm>
#include <charconv>

#include "config/origins.h"
#include "util/error.h"
#include "util/text.h"

namespace speedrun {
namespace {

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

bool in_name(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '.';
}

// Digits from the front of `text`; nothing where there are none or too many.
std::optional<int64_t> take_number(std::string_view& text) {
    int64_t value = 0;
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || text.empty() || !is_digit(text.front())) return {};
    text.remove_prefix(static_cast<size_t>(stop - text.data()));
    return value;
}

// "3", "i", "2i", "2i+1", "i+1"
std::optional<int64_t> affine(std::string_view text, std::optional<int64_t> layer) {
    const auto factor = take_number(text);
    if (text.empty()) return factor;
    if (text.front() != 'i' || !layer) return {};
    text.remove_prefix(1);
    int64_t value = factor.value_or(1) * *layer;
    if (text.empty()) return value;
    if (text.front() != '+') return {};
    text.remove_prefix(1);
    const auto more = take_number(text);
    if (!more || !text.empty()) return {};
    return value + *more;
}

}  // namespace

IndexedName take_indexed_name(std::string_view& text) {
    const auto end = std::ranges::find_if_not(text, in_name);
    IndexedName found{std::string(text.begin(), end), {}};
    text.remove_prefix(found.name.size());
    const std::string first = found.name.substr(0, found.name.find('.'));
    if (!is_identifier(first)) throw NotationError{"no name where one is expected", coefficient_allowed, ""};
    if (!text.starts_with('[')) return found;
    const size_t close = text.find(']');
    if (close == std::string_view::npos) throw NotationError{"a bracket is open", coefficient_allowed, ""};
    std::string_view list = text.substr(1, close - 1);
    for (size_t comma = 0; comma != std::string_view::npos;) {
        comma = list.find(',');
        found.indices.emplace_back(list.substr(0, comma));
        if (comma != std::string_view::npos) list.remove_prefix(comma + 1);
    }
    text.remove_prefix(close + 1);
    return found;
}

IndexRange parse_index(const std::string& text, int64_t size, const NotationScope& scope, bool ranges) {
    const std::string allowed = "0 .. " + std::to_string(size - 1) + (scope.layer ? ", or i" : "");
    if (text.find('i') != std::string::npos && !scope.layer)
        throw NotationError{"there is no layer index i here", allowed, ""};
    const size_t colon = text.find(':');
    const auto begin = affine(std::string_view(text).substr(0, colon), scope.layer);
    auto end = begin ? std::optional(*begin + 1) : begin;
    if (colon != std::string::npos && ranges)
        end = affine(std::string_view(text).substr(colon + 1), scope.layer);
    const bool range = colon != std::string::npos;
    if (!begin || !end || (range && !ranges) || *begin >= *end || *end > size) {
        const std::string shown = begin && !range ? std::to_string(*begin) : text;
        throw NotationError{"index " + in_quotes(shown) + " is out of range", allowed, ""};
    }
    return {*begin, *end, range};
}

const ParamConfig& find_param(const std::string& name, const ModelConfig& model) {
    std::vector<std::string> names;
    for (const ParamConfig& param : model.params) {
        if (param.name == name) return param;
        names.push_back(param.name);
    }
    throw NotationError{"no parameter is called " + in_quotes(name),
                        names.empty() ? "none is declared" : joined(names), nearest_name(name, names)};
}

WeightRef weight_at(const ParamConfig& param, std::span<const std::string> indices,
                    const NotationScope& scope) {
    if (indices.size() > param.shape.size())
        throw NotationError{"too many indices", std::to_string(param.shape.size()) + " for " + param.name,
                            ""};
    WeightRef weight{param.name, 0, {}};
    int64_t entry = product(param.shape).value_or(0);
    for (size_t d = 0; d < indices.size(); ++d) {
        const bool last = d + 1 == indices.size();
        const IndexRange index = parse_index(indices[d], param.shape[d], scope, last);
        entry /= param.shape[d];
        weight.begin += index.begin * entry;
        if (index.whole) weight.shape.push_back(index.end - index.begin);
    }
    weight.shape.insert(weight.shape.end(), param.shape.begin() + static_cast<ptrdiff_t>(indices.size()),
                        param.shape.end());
    return weight;
}

WeightRef parse_weight(const std::string& text, const NotationScope& scope) {
    std::string_view rest = text;
    const IndexedName named = take_indexed_name(rest);
    if (!rest.empty()) throw NotationError{"no part of a parameter", weight_allowed, ""};
    const ParamConfig& param = find_param(named.name, scope.model);
    if (!named.indices.empty() || param.layers.empty()) return weight_at(param, named.indices, scope);
    const auto owner = scope.layer ? std::ranges::find(param.layers, *scope.layer) : param.layers.end();
    if (owner == param.layers.end())
        throw NotationError{"parameter " + param.name + " has no entry for " +
                                (scope.layer ? "layer " + std::to_string(*scope.layer) : "what is no layer"),
                            "layers " + Json(param.layers).dump() + ", or an index", ""};
    const int64_t entries = param.entries_per_layer, first = (owner - param.layers.begin()) * entries;
    const std::string range = entries == 1 ? "" : ":" + std::to_string(first + entries);
    return weight_at(param, std::vector{std::to_string(first) + range}, scope);
}

void split_weight(const WeightRef& whole, std::initializer_list<WeightRef*> parts) {
    if (whole.param.empty()) return;
    const int64_t cols = whole.shape.empty() ? 1 : whole.shape.back();
    const int64_t rows = product(whole.shape).value_or(0) / std::max<int64_t>(1, cols);
    const auto count = static_cast<int64_t>(parts.size());
    int64_t begin = whole.begin;
    for (WeightRef* part : parts) {
        *part = {whole.param, begin, {rows / count, cols}};
        begin += rows / count * cols;
    }
}

// The fewest indices that say the same.
std::string format_weight(const WeightRef& weight, const ModelConfig& model) {
    const ParamConfig& param = model.param(weight.param);
    if (weight.shape == param.shape && weight.begin == 0 && param.layers.empty()) return weight.param;
    std::string indices;
    int64_t begin = weight.begin, entry = product(param.shape).value_or(0);
    const int64_t elements = product(weight.shape).value_or(0);
    for (const int64_t size : param.shape) {
        if (entry == elements && !indices.empty()) break;
        entry /= size;
        const int64_t first = begin / entry;
        begin %= entry;
        indices += (indices.empty() ? "" : ",") + std::to_string(first);
        if (entry >= elements) continue;
        indices += ":" + std::to_string(first + elements / entry);
        break;
    }
    return weight.param + "[" + indices + "]";
}

}  // namespace speedrun
