#include "config/notation.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "config/origins.h"
#include "util/error.h"
#include "util/shape.h"
#include "util/text.h"

namespace speedrun {
namespace {

constexpr int64_t max_elements = int64_t{1} << 40;
const std::string dim_allowed =
    "an integer >= 1, " + joined(dim_names) + ", or a multiple or part like \"4*d_model\", \"head_dim/2\"";

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
    if (name == "head_dim") return model.head_dim;
    if (name == "n_layer") return model.n_layer;
    throw NotationError{"no dimension of that name", dim_allowed, nearest_name(name, dim_names)};
}

}  // namespace

bool is_identifier(const std::string& name) {
    const auto word = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
    return !name.empty() && name.size() <= 100 && word(name[0]) &&
           std::all_of(name.begin(), name.end(), [&](char c) { return word(c) || (c >= '0' && c <= '9'); });
}

std::optional<int64_t> product(const std::vector<int64_t>& dims) {
    return element_count_up_to(max_elements, dims);
}

// "d_model", "4*d_model", "head_dim/2", "3*head_dim/4"
int64_t parse_named_dim(const std::string& text, const ModelConfig& model) {
    const size_t star = text.find('*'), name = star == std::string::npos ? 0 : star + 1;
    const size_t slash = std::min(text.find('/', name), text.size());
    const auto factor = name == 0 ? 1 : parse_integer(std::string_view(text).substr(0, star));
    const auto divisor = slash == text.size() ? 1 : parse_integer(std::string_view(text).substr(slash + 1));
    if (!factor || !divisor || *divisor < 1) throw NotationError{"no size", dim_allowed, ""};
    const auto size = product({*factor, named_dim(text.substr(name, slash - name), model)});
    if (!size) throw NotationError{"too large", "at most 2^40", ""};
    if (*size % *divisor != 0)
        throw NotationError{"no whole number", "a divisor of " + std::to_string(*size), ""};
    return *size / *divisor;
}

int64_t parse_dim(const Json& value, const ModelConfig& model) {
    int64_t dim = 0;
    if (value.is_string()) {
        dim = parse_named_dim(value.get_ref<const std::string&>(), model);
    } else if (value.is_number_integer() && value <= max_elements) {
        dim = value.get<int64_t>();
    }
    if (dim < 1) throw NotationError{"no size", dim_allowed, ""};
    return dim;
}

}  // namespace speedrun
