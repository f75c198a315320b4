#pragma once
// The small notations of a config: sizes and coefficients.
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "config/config.h"
#include "config/json_document.h"

namespace speedrun {

// What is wrong with a notation; the reader adds where.
struct NotationError {
    std::string what, allowed, nearest;
};

// A size: an integer, a dimension of the model ("d_model"), or a product "4*d_model". Throws NotationError.
int64_t parse_dim(const Json& value, const ModelConfig& model);

inline const std::vector<std::string> dim_names{"vocab_size", "d_model", "mlp_hidden", "n_head"};
inline constexpr const char* dim_pattern = "^([0-9]+\\*)?(vocab_size|d_model|mlp_hidden|n_head)$";

// A coefficient: a number, "[-]param.slice[a,b]" or "[-]sigmoid(param.slice[a])"; indices are integers or
// "i", the index of the layer. Throws NotationError.
Coefficient parse_coefficient(const Json& value, const ModelConfig& model, std::optional<int64_t> layer);
Json format_coefficient(const Coefficient& coefficient, const ModelConfig& model);

inline constexpr const char* coefficient_pattern =
    "^-?(sigmoid\\([A-Za-z_]\\w*\\.[A-Za-z_]\\w*(\\[(\\d+|i)(,(\\d+|i))*\\])?\\)"
    "|[A-Za-z_]\\w*\\.[A-Za-z_]\\w*(\\[(\\d+|i)(,(\\d+|i))*\\])?)$";

// [A-Za-z_][A-Za-z0-9_]*, at most 100 long
bool is_identifier(const std::string& name);

// The product, at most 2^40 (any parameter is smaller); nothing where it is larger.
std::optional<int64_t> product(const std::vector<int64_t>& dims);

}  // namespace speedrun
