#include "model/scalar_table.h"

#include <ATen/ATen.h>

#include <map>
#include <utility>

#include "util/error.h"

namespace speedrun {
namespace {

using Operation = ops::ScalarInstruction::Operation;

class ScalarCompiler {
  public:
    // `bf16`: what activations are, as which some parameters count (ParamConfig::round_in_use).
    ScalarCompiler(const ParameterTable& parameters, bool bf16) : parameters_(parameters), bf16_(bf16) {}

    void add(const Coefficient& coefficient) {
        begin_ = static_cast<int32_t>(program_.instructions.size());
        expression(coefficient);
        program_.starts.push_back(static_cast<int32_t>(program_.instructions.size()));
    }

    ops::ScalarProgram finish() {
        for (const auto& of_element : uses_) {
            program_.uses_begin.push_back(static_cast<int32_t>(program_.uses.size()));
            program_.uses.insert(program_.uses.end(), of_element.begin(), of_element.end());
        }
        program_.uses_begin.push_back(static_cast<int32_t>(program_.uses.size()));
        return std::move(program_);
    }

  private:
    int32_t last() const { return static_cast<int32_t>(program_.instructions.size()) - 1 - begin_; }

    void expression(const Coefficient& c) {
        switch (c.kind) {
            case Coefficient::Kind::number:
                program_.instructions.push_back({.number = static_cast<float>(c.number)});
                return;
            case Coefficient::Kind::element:
                return element(c.weight);
            case Coefficient::Kind::sum:
                return fold(c.arguments, Operation::add);
            case Coefficient::Kind::product:
                return fold(c.arguments, Operation::multiply);
            case Coefficient::Kind::sigmoid:
            case Coefficient::Kind::tanh:
                expression(c.arguments.front());
                program_.instructions.push_back(
                    {.operation = c.kind == Coefficient::Kind::tanh ? Operation::tanh : Operation::sigmoid});
                return;
            default:
                throw InternalError("a scalar coefficient holds what differs from token to token");
        }
    }

    void fold(const std::vector<Coefficient>& arguments, Operation operation) {
        expression(arguments.front());
        for (size_t i = 1; i < arguments.size(); ++i) {
            const int32_t left = last();
            expression(arguments[i]);
            program_.instructions.push_back({.operation = operation, .left = left});
        }
    }

    void element(const WeightRef& weight) {
        const auto [found, is_new] =
            elements_.emplace(std::pair{weight.param, weight.begin}, std::ssize(program_.elements));
        if (is_new) {
            const Parameter& parameter = parameters_[weight.param];
            program_.elements.push_back(
                {parameter.value.view(-1)[weight.begin], parameter.grad.view(-1)[weight.begin]});
            uses_.emplace_back();
        }
        const auto index = static_cast<int32_t>(found->second);
        uses_[static_cast<size_t>(index)].push_back(static_cast<int32_t>(program_.instructions.size()));
        program_.instructions.push_back(
            {.operation = Operation::element,
             .element = index,
             .round_to_bf16 = bf16_ && parameters_[weight.param].config.round_in_use});
    }

    const ParameterTable& parameters_;
    bool bf16_;
    ops::ScalarProgram program_;
    int32_t begin_ = 0;
    std::map<std::pair<std::string, int64_t>, int64_t> elements_;
    std::vector<std::vector<int32_t>> uses_;
};

}  // namespace

ScalarTable::ScalarTable(const std::vector<Coefficient>& scalars, const ParameterTable& parameters,
                         Dtype activations, at::Device device)
    : values_(at::zeros({std::ssize(scalars)}, at::device(device).dtype(at::kFloat))),
      grads_(at::zeros_like(values_)) {
    if (device.is_meta()) return;
    ScalarCompiler compiler(parameters, activations == Dtype::bf16);
    for (const Coefficient& scalar : scalars) compiler.add(scalar);
    evaluator_.emplace(compiler.finish(), device);
}

void ScalarTable::evaluate() {
    if (!evaluator_) return;
    grads_.zero_();
    evaluator_->evaluate(values_);
}

void ScalarTable::backward() const {
    if (evaluator_) evaluator_->backward(grads_);
}

}  // namespace speedrun
