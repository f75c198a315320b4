#include "config/read_config.h"

#include <algorithm>

#include "config/overlay.h"
#include "config/reader.h"
#include "config/sections.h"
#include "config/validate.h"
#include "config/writer.h"
#include "util/error.h"
#include "util/sha256.h"

namespace speedrun {
namespace {

// Rows of the optimizer's table in the order of the model's parameters, whatever the file's.
void sort_rows(Config& config) {
    const auto place = [&](const OptimParamConfig& row) {
        return std::find_if(config.model.params.begin(), config.model.params.end(),
                            [&](const ParamConfig& param) { return param.name == row.param; });
    };
    std::stable_sort(config.optimizer.params.begin(), config.optimizer.params.end(),
                     [&](const auto& a, const auto& b) { return place(a) < place(b); });
}

// The axis of each matrix row's second moment, where the row does not say.
void resolve_rows(OptimizerConfig& optimizer) {
    using SecondMoment = MatrixConfig::SecondMoment;
    for (OptimParamConfig& row : optimizer.params) {
        if (row.rule != OptimParamConfig::Rule::matrix || row.var_reduce_dim != 0) continue;
        const SecondMoment kind = optimizer.matrix.second_moment;
        const bool tall = row.matrix_view[1] >= row.matrix_view[2];
        const bool rows = kind == SecondMoment::rows || (kind == SecondMoment::longer_side && tall);
        row.var_reduce_dim = rows ? -1 : -2;
    }
}

// A rule takes effect before what is set beside it, in whatever order they were given.
std::vector<std::string> rules_first(std::span<const std::string> overrides) {
    std::vector<std::string> ordered(overrides.begin(), overrides.end());
    std::ranges::stable_partition(
        ordered, [](const std::string& text) { return text.starts_with("optimizer.matrix.rule="); });
    return ordered;
}

Config read_sections(const Json& root, const Report& report) {
    Config config;
    Scope scope;
    scope.report = &report;
    scope.model = &config.model;
    Reader::read(root, "", scope, [&](Fields& fields) { visit_config(fields, config); });
    return config;
}

}  // namespace

int64_t DataConfig::MaxNumDocs::entries(int64_t tokens) const {
    const auto own = std::ranges::find(sizes, tokens, &Size::tokens);
    if (own != sizes.end()) return own->entries;
    return multiple * std::max<int64_t>(1, (tokens / divisor + multiple - 1) / multiple);
}

int64_t DataConfig::cu_seqlens_entries(int64_t tokens) const {
    return sequence_tokens > 0 ? tokens / sequence_tokens + 1 : max_num_docs.entries(tokens);
}

const ParamConfig& ModelConfig::param(const std::string& name) const {
    const auto found = std::find_if(params.begin(), params.end(),
                                    [&](const ParamConfig& param) { return param.name == name; });
    check(found != params.end(), "no parameter \"" + name + "\" in a validated config");
    return *found;
}

ConfigDraft read_config(const std::filesystem::path& file, std::span<const std::string> overrides) {
    ConfigDraft draft;
    Json root = read_with_parents(file, draft.origins);
    for (const std::string& text : rules_first(overrides)) apply_override(root, text, draft.origins);
    expand_layers(root, draft.origins);

    const Report report(draft.origins);
    Config& config = draft.config;
    config = read_sections(root, report);
    validate_data(config, report);
    validate_optimizer(config, report);
    validate_comm(config, report);
    validate_schedule(config, report);
    validate_runtime(config, report);
    resolve_rows(config.optimizer);
    sort_rows(config);
    config.resolved_json = pretty_json(write_config(config)) + "\n";
    config.hash = sha256_hex(config.resolved_json);
    return draft;
}

}  // namespace speedrun
