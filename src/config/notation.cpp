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
const std::string dim_allowed = "an integer >= 1, " + joined(dim_names) + ", or a product like \"4*d_model\"";

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

}  // namespace speedrun
