#include <algorithm>
#include <map>

#include "config/notation.h"
#include "config/validate.h"
#include "util/json_document.h"
#include "util/shape.h"
#include "util/text.h"

namespace speedrun {
namespace {

void check_dimensions(const ModelConfig& model, const Report& report) {
    if (model.n_head * model.head_dim != model.d_model)
        report.fail("model.d_model", "is not n_head * head_dim",
                    {std::to_string(model.d_model),
                     std::to_string(model.n_head) + " * " + std::to_string(model.head_dim) + " = " +
                         std::to_string(model.n_head * model.head_dim),
                     ""});
    // Rows of 16 elements are what tensor cores and FP8 matmuls take.
    if (model.vocab_size % 16 != 0)
        report.fail("model.vocab_size", "rows of the tables are padded to a multiple of 16",
                    {std::to_string(model.vocab_size), "a multiple of 16", ""});
    if (model.head_dim % 2 != 0)
        report.fail("model.head_dim", "rotary embedding turns pairs",
                    {std::to_string(model.head_dim), "an even number", ""});
    if (model.rope.rotary_dims % 2 != 0 || model.rope.rotary_dims > model.head_dim)
        report.fail("model.rope.rotary_dims", "rotary embedding turns pairs of a head's dims",
                    {std::to_string(model.rope.rotary_dims),
                     "an even number, at most head_dim = " + std::to_string(model.head_dim), ""});
    if (model.rope.yarn_beta <= model.rope.yarn_alpha)
        report.fail(
            "model.rope.yarn.beta", "is not above alpha",
            {Json(model.rope.yarn_beta).dump(), "a number > " + Json(model.rope.yarn_alpha).dump(), ""});
}

void check_per_layer(const ModelConfig& model, const ParamConfig& param, const std::string& path,
                     const Report& report) {
    if (param.layers.empty()) return;
    for (size_t i = 0; i < param.layers.size(); ++i)
        if (param.layers[i] >= model.n_layer || (i > 0 && param.layers[i] <= param.layers[i - 1]))
            report.fail(join_path(path + ".layers", i), "not a layer above the one before",
                        {std::to_string(param.layers[i]),
                         "ascending indices, 0 .. " + std::to_string(model.n_layer - 1), ""});
    if (param.named_by_entry() && param.entries_per_layer != 1)
        report.fail(path + ".entries_per_layer", "each entry has a name of its own in weight files",
                    {std::to_string(param.entries_per_layer), "1, or a state_dict without {i}", ""});
    // A bank that files know as a whole may have more, which no layer uses.
    const auto entries = static_cast<int64_t>(param.layers.size()) * param.entries_per_layer;
    if (param.named_by_entry() ? param.shape[0] != entries : param.shape[0] < entries)
        report.fail(path + ".shape", "dimension 0 is too small or too large for its layers",
                    {shape_text(param.shape), std::to_string(entries) + " entries, as in layers", ""});
}

void check_init(const ParamConfig& param, const std::string& path, const Report& report) {
    if (param.init.size() == 1) return;
    if (param.shape.size() < 3 || param.init.size() != static_cast<size_t>(param.shape[1]))
        report.fail(path + ".init", "a list has one initialiser for each index of dimension 1",
                    {std::to_string(param.init.size()) + " for shape " + shape_text(param.shape),
                     param.shape.size() < 3 ? "one" : "one, or " + std::to_string(param.shape[1]), ""});
}

// Slices neither overlap nor leave an element out.
void check_slices(const ParamConfig& param, const std::string& path, const Report& report) {
    if (param.slices.empty()) return;
    if (param.shape.size() != 1)
        report.fail(path + ".slices", "only parameters of one dimension have slices",
                    {"shape " + shape_text(param.shape), "[n]", ""});
    auto slices = param.slices;
    std::stable_sort(slices.begin(), slices.end(),
                     [](const Slice& a, const Slice& b) { return a.at < b.at; });
    int64_t next = 0;
    for (const Slice& slice : slices) {
        const std::string at = path + ".slices." + slice.name;
        const int64_t size = product(slice.shape).value_or(INT64_C(1) << 41);
        if (slice.at != next)
            report.fail(at + ".at", "slices must follow each other",
                        {std::to_string(slice.at), std::to_string(next), ""});
        next = slice.at + size;
        if (next > param.shape[0])
            report.fail(at, "ends behind the parameter",
                        {"elements up to " + std::to_string(next - 1),
                         "up to " + std::to_string(param.shape[0] - 1), ""});
        if (size % static_cast<int64_t>(slice.init.size()) != 0)
            report.fail(
                at + ".init", "does not repeat evenly over the slice",
                {std::to_string(slice.init.size()) + " numbers", "a divisor of " + std::to_string(size), ""});
    }
    if (next != param.shape[0])
        report.fail(
            path + ".slices", "leave elements out",
            {std::to_string(next) + " elements", std::to_string(param.shape[0]) + ", as in shape", ""});
}

// Names that one entry of the parameter each has in weight files.
std::vector<std::string> file_names(const ParamConfig& param, const std::string& path, const Report& report) {
    std::string pattern = param.state_dict.empty() ? param.name : param.state_dict;
    const size_t brace = pattern.find('{');
    const bool per_layer = !param.layers.empty();
    if (brace == std::string::npos) return {pattern};
    const std::string allowed =
        per_layer ? "one {i}, the layer" : "at most one {k}, the index in dimension 0";
    const bool fits =
        brace != std::string::npos && pattern.compare(brace, 3, per_layer ? "{i}" : "{k}") == 0 &&
        pattern.find('{', brace + 1) == std::string::npos && (per_layer || param.shape.size() >= 2);
    if (!fits)
        report.fail(path + ".state_dict", "does not name each entry", {in_quotes(pattern), allowed, ""});
    std::vector<std::string> names;
    // Enough to find clashes; a bank has few entries.
    const int64_t count = std::min<int64_t>(param.shape[0], 4096);
    for (int64_t k = 0; k < count; ++k) {
        const int64_t number = per_layer ? param.layers[static_cast<size_t>(k)] : k;
        names.push_back(pattern.substr(0, brace) + std::to_string(number) + pattern.substr(brace + 3));
    }
    return names;
}

void check_state_dict_shape(const ParamConfig& param, const std::string& path, const Report& report) {
    if (param.state_dict_shape.empty()) return;
    const std::vector<int64_t> entry(param.shape.begin() + (param.named_by_entry() ? 1 : 0),
                                     param.shape.end());
    if (product(param.state_dict_shape) != product(entry))
        report.fail(path + ".state_dict_shape", "does not hold one entry",
                    {shape_text(param.state_dict_shape),
                     "a shape with as many elements as " + shape_text(entry), ""});
}

}  // namespace

void validate_params(const ModelConfig& model, const Report& report) {
    check_dimensions(model, report);
    std::map<std::string, std::string> owner;  // of each name in weight files
    for (const ParamConfig& param : model.params) {
        const std::string path = "model.params." + param.name;
        if (!product(param.shape))
            report.fail(path + ".shape", "too large", {shape_text(param.shape), "2^40 elements", ""});
        check_per_layer(model, param, path, report);
        check_init(param, path, report);
        check_slices(param, path, report);
        for (const std::string& name : file_names(param, path, report))
            if (const auto [at, is_new] = owner.emplace(name, param.name); !is_new)
                report.fail(path + ".state_dict", "the name " + in_quotes(name) + " is taken",
                            {"the name of " + at->second, "names that differ", ""});
        check_state_dict_shape(param, path, report);
        if (param.round_in_use && param.dtype != Dtype::fp32)
            report.fail(path + ".round_in_use", "the parameter is bf16 already", {"true", "false", ""});
        const size_t dimensions = param.shape.size() - (param.named_by_entry() ? 1 : 0);
        if (param.state_dict_transposed && (dimensions != 2 || !param.state_dict_shape.empty()))
            report.fail(path + ".state_dict_transposed",
                        "only one matrix of the bank's own shape can be turned",
                        {shape_text(param.shape), "two dimensions, and no state_dict_shape", ""});
    }
}

}  // namespace speedrun
