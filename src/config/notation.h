#pragma once
// The small notations of a config: sizes, parts of parameters, coefficients.
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "config/model_config.h"
#include "util/json_document.h"

namespace speedrun {

// What is wrong with a notation; the reader adds where.
struct NotationError {
    std::string what, allowed, nearest;
};

// What names in a notation mean: parameters that have been read, and inside a layer its index.
struct NotationScope {
    const ModelConfig& model;
    std::optional<int64_t> layer;
};

// A size: an integer, a dimension of the model ("d_model"), or a product "4*d_model". Throws NotationError.
int64_t parse_dim(const Json& value, const ModelConfig& model);

inline const std::vector<std::string> dim_names{"vocab_size", "d_model",  "mlp_hidden",
                                                "n_head",     "head_dim", "n_layer"};
inline constexpr const char* dim_pattern = "^([0-9]+\\*)?(vocab_size|d_model|mlp_hidden|n_head|head_dim)$";

// Coefficient and WeightRef say what is written (config/coefficient.h). Throws NotationError.
Coefficient parse_coefficient(const Json& value, const NotationScope& scope);
Json format_coefficient(const Coefficient& coefficient, const ModelConfig& model);
inline const std::string weight_allowed =
    "a parameter (its entries of this layer, where it has layers), or indices into it: \"mlp_bank[i,0]\", "
    "\"qk_bank[6i:6i+6]\"";
WeightRef parse_weight(const std::string& text, const NotationScope& scope);
std::string format_weight(const WeightRef& weight, const ModelConfig& model);

// Matrices of equal size that follow each other in `whole`; nothing where `whole` names no parameter. Parts
// keep the last dimension; where it does not divide, they have shapes that fit nothing.
void split_weight(const WeightRef& whole, std::initializer_list<WeightRef*> parts);

// [A-Za-z_][A-Za-z0-9_]*, at most 100 long
bool is_identifier(const std::string& name);

// The product, at most 2^40 (any parameter is smaller); nothing where it is larger.
std::optional<int64_t> product(const std::vector<int64_t>& dims);

}  // namespace speedrun
