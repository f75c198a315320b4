#include "config/notation.h"

#include <algorithm>
#include <charconv>

#include "config/origins.h"
#include "util/error.h"

namespace speedrun {
namespace {

constexpr int64_t max_elements = int64_t{1} << 40;
const std::string dim_allowed = "an integer >= 1, " + joined(dim_names) + ", or a product like \"4*d_model\"";
const std::string coefficient_allowed =
    "a number, \"[-]param.slice[index,...]\" or \"[-]sigmoid(param.slice[index,...])\"";

std::optional<int64_t> parse_integer(std::string_view text) {
    int64_t value = 0;
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || stop != text.data() + text.size() || value < 0) return {};
    return value;
}

int64_t named_dim(const std::string& name, const ModelConfig& model) {
    if (name == "vocab_size") return model.vocab_size;
    if (name == "d_model") return model.d_model;
    if (name == "mlp_hidden") return model.mlp_hidden;
    if (name == "n_head") return model.n_head;
    throw NotationError{"no dimension of that name", dim_allowed, nearest_name(name, dim_names)};
}

template <typename T>
const T& by_name(const std::vector<T>& items, const std::string& name, const std::string& what) {
    const auto found = std::ranges::find(items, name, &T::name);
    if (found != items.end()) return *found;
    std::vector<std::string> names;
    for (const T& item : items) names.push_back(item.name);
    throw NotationError{"no " + what + " is called " + in_quotes(name),
                        names.empty() ? "none is declared" : joined(names), nearest_name(name, names)};
}

struct Element {
    std::string param, slice;
    std::vector<std::string> indices;
};

// "param.slice[a,b]"
Element parse_element(std::string_view text) {
    const NotationError malformed{"no coefficient", coefficient_allowed, ""};
    Element element;
    if (const size_t bracket = text.find('['); bracket != std::string_view::npos) {
        if (!text.ends_with(']')) throw malformed;
        std::string_view list = text.substr(bracket + 1, text.size() - bracket - 2);
        for (size_t comma = 0; comma != std::string_view::npos;) {
            comma = list.find(',');
            element.indices.emplace_back(list.substr(0, comma));
            if (comma != std::string_view::npos) list.remove_prefix(comma + 1);
        }
        text = text.substr(0, bracket);
    }
    const size_t dot = text.find('.');
    element.param = text.substr(0, dot);
    element.slice = dot == std::string_view::npos ? "" : text.substr(dot + 1);
    if (!is_identifier(element.param) || !is_identifier(element.slice)) throw malformed;
    return element;
}

int64_t parse_index(const std::string& text, int64_t size, std::optional<int64_t> layer) {
    const std::string allowed = "0 .. " + std::to_string(size - 1) + (layer ? ", or i" : "");
    if (text == "i" && !layer) throw NotationError{"there is no layer index i here", allowed, ""};
    const auto value = text == "i" ? layer : parse_integer(text);
    if (!value || *value >= size)
        throw NotationError{"index " + in_quotes(value ? std::to_string(*value) : text) + " is out of range",
                            allowed, ""};
    return *value;
}

}  // namespace

bool is_identifier(const std::string& name) {
    const auto word = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
    return !name.empty() && name.size() <= 100 && word(name[0]) &&
           std::all_of(name.begin(), name.end(), [&](char c) { return word(c) || (c >= '0' && c <= '9'); });
}

std::optional<int64_t> product(const std::vector<int64_t>& dims) {
    int64_t result = 1;
    for (const int64_t dim : dims) {
        if (dim < 0 || (dim > 0 && result > max_elements / dim)) return {};
        result *= dim;
    }
    return result;
}

int64_t parse_dim(const Json& value, const ModelConfig& model) {
    int64_t dim = 0;
    if (value.is_string()) {
        const auto& text = value.get_ref<const std::string&>();
        const size_t star = text.find('*');
        const auto factor =
            star == std::string::npos ? 1 : parse_integer(std::string_view(text).substr(0, star));
        if (!factor) throw NotationError{"no size", dim_allowed, ""};
        const auto size =
            product({*factor, named_dim(text.substr(star == std::string::npos ? 0 : star + 1), model)});
        if (!size) throw NotationError{"too large", "at most 2^40", ""};
        dim = *size;
    } else if (value.is_number_integer() && value <= max_elements) {
        dim = value.get<int64_t>();
    }
    if (dim < 1) throw NotationError{"no size", dim_allowed, ""};
    return dim;
}

Coefficient parse_coefficient(const Json& value, const ModelConfig& model, std::optional<int64_t> layer) {
    Coefficient coefficient;
    if (value.is_number()) {
        coefficient.scale = value.get<double>();
        return coefficient;
    }
    if (!value.is_string()) throw NotationError{"no coefficient", coefficient_allowed, ""};
    std::string_view text = value.get_ref<const std::string&>();
    if (text.starts_with('-')) {
        coefficient.scale = -1;
        text.remove_prefix(1);
    }
    constexpr std::string_view sigmoid = "sigmoid(";
    if (text.starts_with(sigmoid) && text.ends_with(')')) {
        coefficient.fn = Coefficient::Fn::sigmoid;
        text = text.substr(sigmoid.size(), text.size() - sigmoid.size() - 1);
    }
    const Element element = parse_element(text);
    const ParamConfig& param = by_name(model.params, element.param, "parameter");
    const Slice& slice = by_name(param.slices, element.slice, "slice of " + param.name);
    if (element.indices.size() != slice.shape.size())
        throw NotationError{"wrong number of indices",
                            std::to_string(slice.shape.size()) + " for " + param.name + "." + slice.name, ""};
    int64_t flat = 0;
    for (size_t d = 0; d < slice.shape.size(); ++d)
        flat = flat * slice.shape[d] + parse_index(element.indices[d], slice.shape[d], layer);
    coefficient.param = param.name;
    coefficient.index = slice.at + flat;
    return coefficient;
}

Json format_coefficient(const Coefficient& coefficient, const ModelConfig& model) {
    if (coefficient.param.empty()) return coefficient.scale;
    const auto& slices = model.param(coefficient.param).slices;
    const auto holds = [&](const Slice& slice) {
        return coefficient.index >= slice.at &&
               coefficient.index < slice.at + product(slice.shape).value_or(0);
    };
    const auto slice = std::find_if(slices.begin(), slices.end(), holds);
    check(slice != slices.end() && (coefficient.scale == 1 || coefficient.scale == -1),
          "a coefficient that no notation gives");
    std::string indices;
    int64_t rest = coefficient.index - slice->at;
    for (auto size = slice->shape.rbegin(); size != slice->shape.rend(); ++size) {
        indices = std::to_string(rest % *size) + (indices.empty() ? "" : ",") + indices;
        rest /= *size;
    }
    std::string text = coefficient.param + "." + slice->name + (indices.empty() ? "" : "[" + indices + "]");
    if (coefficient.fn == Coefficient::Fn::sigmoid) text = "sigmoid(" + text + ")";
    return (coefficient.scale < 0 ? "-" : "") + text;
}

}  // namespace speedrun
