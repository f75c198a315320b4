#include <algorithm>

#include "config/json_document.h"
#include "config/notation.h"
#include "config/validate.h"

namespace speedrun {
namespace {

void check_multiple(const std::string& path, int64_t value, const std::string& of, int64_t unit,
                    const Report& report) {
    if (value % unit != 0)
        report.fail(path, "is no multiple of " + of,
                    {std::to_string(value), "a multiple of " + std::to_string(unit), ""});
}

void check_row(const OptimParamConfig& row, const ParamConfig& param, const Report& report) {
    if (row.rule != OptimParamConfig::Rule::normuon) return;
    const std::vector<int64_t> view(row.matrix_view.begin(), row.matrix_view.end());
    if (product(view) != product(param.shape))
        report.fail("optimizer.params." + row.param + ".matrix_view", "does not hold the parameter",
                    {Json(view).dump(),
                     "[matrices, rows, cols] with as many elements as " + Json(param.shape).dump(), ""});
    if (row.matrix_view[0] % param.shape[0] != 0)
        report.fail("optimizer.params." + row.param + ".matrix_view", "splits matrices over dimension 0",
                    {std::to_string(row.matrix_view[0]) + " matrices",
                     "a multiple of the parameter's " + std::to_string(param.shape[0]) + " entries", ""});
}

}  // namespace

void validate_data(const Config& config, const Report& report) {
    const DataConfig& data = config.data;
    if (data.bos_id >= data.vocab_size)
        report.fail("data.bos_id", "is no token id",
                    {std::to_string(data.bos_id), "0 .. " + std::to_string(data.vocab_size - 1), ""});
    if (data.vocab_size > config.model.vocab_size)
        report.fail("data.vocab_size", "the model's tables have fewer rows",
                    {std::to_string(data.vocab_size), "1 .. " + std::to_string(config.model.vocab_size), ""});
    check_multiple("data.val_tokens", data.val_tokens, "data.val_micro_batch_tokens",
                   data.val_micro_batch_tokens, report);
}

void validate_optimizer(const Config& config, const Report& report) {
    std::vector<std::string> names;
    for (const ParamConfig& param : config.model.params) names.push_back(param.name);
    for (const OptimParamConfig& row : config.optimizer.params) {
        const auto param = std::find(names.begin(), names.end(), row.param);
        if (param == names.end())
            report.fail_name("optimizer.params." + row.param, "the model has no such parameter", row.param,
                             names);
        check_row(row, config.model.params[static_cast<size_t>(param - names.begin())], report);
    }
    for (const std::string& name : names)
        if (std::none_of(config.optimizer.params.begin(), config.optimizer.params.end(),
                         [&](const auto& row) { return row.param == name; }))
            report.fail("optimizer.params", "no row for parameter " + in_quotes(name),
                        {"", "one for each of model.params", ""});
    const NorMuonConfig& muon = config.optimizer.normuon;
    if (muon.decay == NorMuonConfig::Decay::none && muon.weight_decay != 0)
        report.fail("optimizer.normuon.weight_decay", "has no effect with decay none",
                    {Json(muon.weight_decay).dump(), "0, or another decay", ""});
    // The published coefficients of Polar Express end there.
    constexpr int64_t polar_express_iters = 5;
    if (muon.orthogonalize.method == NorMuonConfig::Orthogonalize::Method::polar_express &&
        muon.orthogonalize.iters > polar_express_iters)
        report.fail("optimizer.normuon.orthogonalize.iters", "polar_express has fewer coefficients",
                    {std::to_string(muon.orthogonalize.iters), "1 .. 5", ""});
}

void validate_schedule(const Config& config, const Report& report) {
    const auto& stages = config.schedule.stages;
    if (stages.empty()) report.fail("schedule.stages", "there is no stage", {"", "one at least", ""});
    for (size_t k = 0; k < stages.size(); ++k) {
        const std::string path = join_path("schedule.stages", k);
        if (k == 0 && stages[k].start != 0)
            report.fail(path + ".start", "the first stage starts at step 0",
                        {std::to_string(stages[k].start), "0", ""});
        if (k > 0 && stages[k].start <= stages[k - 1].start)
            report.fail(
                path + ".start", "stages must ascend",
                {std::to_string(stages[k].start), "more than " + std::to_string(stages[k - 1].start), ""});
        check_multiple(path + ".batch_tokens", stages[k].batch_tokens, "data.micro_batch_tokens",
                       config.data.micro_batch_tokens, report);
    }
}

}  // namespace speedrun
