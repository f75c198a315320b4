#include "optim/diagnostics.h"

#include <ATen/ATen.h>

#include <cmath>

namespace speedrun {
namespace {

double rms(const at::Tensor& x) {
    return x.square().mean().sqrt().item<double>();
}

double condition(const at::Tensor& matrix) {
    const at::Tensor values = at::linalg_svdvals(matrix);
    return (values[0] / values[-1]).item<double>();
}

std::vector<std::string> matrix_names(const ParamConfig& config, int64_t matrices) {
    const std::vector<StateDictEntry> entries = state_dict_entries(config);
    const int64_t each = matrices / static_cast<int64_t>(entries.size());
    std::vector<std::string> names;
    for (const StateDictEntry& entry : entries) {
        for (int64_t k = 0; k < each; ++k) {
            names.push_back(each == 1 ? entry.name : entry.name + "[" + std::to_string(k) + "]");
        }
    }
    return names;
}

}  // namespace

StepDiagnostics::StepDiagnostics(const Config& config, const ParameterTable& table) {
    for (const OptimParamConfig& row : config.optimizer.params) {
        if (row.rule != OptimParamConfig::Rule::matrix) continue;
        const Parameter& parameter = table[row.param];
        watched_.push_back(
            {&parameter, {row.matrix_view.begin(), row.matrix_view.end()}, parameter.value.clone()});
    }
}

std::vector<MatrixDiagnostics> StepDiagnostics::measure() {
    std::vector<MatrixDiagnostics> found;
    for (Watched& watched : watched_) {
        const at::Tensor value = watched.parameter->value.view(watched.matrices);
        const at::Tensor before = watched.before.view(watched.matrices);
        const std::vector<std::string> names = matrix_names(watched.parameter->config, value.size(0));
        for (int64_t i = 0; i < value.size(0); ++i) {
            const at::Tensor now = value[i].to(at::kDouble), change = now - before[i].to(at::kDouble);
            found.push_back({names.at(static_cast<size_t>(i)), rms(now), rms(change), condition(change)});
        }
        watched.before.copy_(watched.parameter->value);
    }
    return found;
}

}  // namespace speedrun
