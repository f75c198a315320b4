#include "optim/rule.h"

#include <ATen/ATen.h>

#include <array>
#include <utility>

#include "config/matrix_rules.h"
#include "optim/adam.h"
#include "optim/matrix_pipeline.h"
#include "optim/surrounded.h"
#include "util/error.h"

namespace speedrun {
namespace {

using Make = std::unique_ptr<UpdateRule> (*)(const MatrixRuleInput& input);

std::unique_ptr<UpdateRule> make_pipeline(const MatrixRuleInput& input) {
    return std::make_unique<MatrixPipeline>(input);
}

template <size_t index>
constexpr Make maker() {
    if constexpr ((matrix_rules[index].parts & matrix_part::pipeline) != 0)
        return make_pipeline;
    else
        return make_matrix_rule<index>;
}

template <size_t... indices>
constexpr std::array<Make, sizeof...(indices)> makers(std::index_sequence<indices...>) {
    return {maker<indices>()...};
}

// The rule `none`.
class KeepsValues final : public UpdateRule {
  public:
    void step(Parameter& part, const RuleStep&) override { part.grad.zero_(); }
    std::vector<StateTensor> state() const override { return {}; }
    RuleCost cost(bool) const override { return {}; }
};

std::unique_ptr<UpdateRule> make_bare_rule(const OptimizerConfig& config, const OptimParamConfig& row,
                                           const Parameter& part) {
    if (row.rule == OptimParamConfig::Rule::adam) return std::make_unique<Adam>(config.adam, row, part);
    if (row.rule == OptimParamConfig::Rule::none) return std::make_unique<KeepsValues>();
    static constexpr auto kMakers = makers(std::make_index_sequence<matrix_rules.size()>());
    const auto& [matrices, rows, cols] = row.matrix_view;
    check(matrices * rows * cols == part.value.numel(),
          row.param + ": matrix_view has another number of elements");
    const size_t index = matrix_rule_index(config.matrix.rule);
    check(index < kMakers.size(), "no matrix rule \"" + config.matrix.rule + "\"");
    return kMakers[index]({config.matrix, row, part});
}

}  // namespace

int64_t UpdateRule::state_bytes() const {
    int64_t bytes = 0;
    for (const StateTensor& part : state()) bytes += static_cast<int64_t>(part.tensor.nbytes());
    return bytes;
}

std::unique_ptr<UpdateRule> make_rule(const OptimizerConfig& config, const OptimParamConfig& row,
                                      const Parameter& part) {
    return surround(make_bare_rule(config, row, part), config, row, part);
}

std::string rule_name(const OptimizerConfig& config, OptimParamConfig::Rule rule) {
    switch (rule) {
        case OptimParamConfig::Rule::adam:
            return "adam";
        case OptimParamConfig::Rule::matrix:
            return config.matrix.rule;
        case OptimParamConfig::Rule::none:
            return "none";
    }
    throw InternalError("no such rule");
}

std::unique_ptr<UpdateRule> make_meta_rule(const OptimizerConfig& config, const OptimParamConfig& row,
                                           const ParamConfig& param, at::ScalarType dtype) {
    const at::Tensor value = at::empty(param.shape, at::TensorOptions().dtype(dtype).device(at::kMeta));
    return make_rule(config, row, {param, value, value, value});
}

}  // namespace speedrun
