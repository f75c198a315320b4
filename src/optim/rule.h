#pragma once
// What every update rule is to the optimizer, to checkpoints and to plans.
// A new one is a row in config/matrix_rules.h and, unless it is a choice of the pipeline's parts, one file
// here: README.md beside this file goes through an example.
#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "config/config.h"
#include "model/parameters.h"
#include "ops/step_numbers.h"

namespace speedrun {

// What varies from one step of a rule to the next.
struct RuleStep {
    double lr_scale = 1;  // multiplies the rule's lr
    double momentum = 0;  // of rules that have one
    int64_t t = 1;        // steps of this kind of rule so far, this one included
    // The rule's step_numbers() where they are read when the step runs, fp64; undefined: nowhere.
    at::Tensor on_device = {};
    int64_t run_step = 0;  // of the run, from 0: what shapes by step count in
    // Of what surrounds rules (surrounded.h); as StepSettings has them.
    double lookahead = 0;
    bool averages = false, restarts_average = false;

    // Element `index` of a rule's step_numbers().
    ops::StepNumber number(const std::vector<double>& numbers, size_t index) const {
        return {numbers[index], on_device.defined() ? on_device[static_cast<int64_t>(index)] : at::Tensor()};
    }
};

struct StateTensor {
    std::string name;
    at::Tensor tensor;  // zero where the rule is new
};

struct RuleCost {
    double flop = 0;         // of a step's matrix products, on average
    int64_t work_bytes = 0;  // largest temporaries of a step
};

// A rule and its state for a part of one parameter: whole matrices, or for element rules rows.
class UpdateRule {
  public:
    virtual ~UpdateRule() = default;

    // One step; the gradient is zero and the compute copy up to date afterwards.
    virtual void step(Parameter& part, const RuleStep& step) = 0;

    // Before the forward of a step: what must be done to values, from which the compute copy is made anew.
    virtual void run_ahead(Parameter&, const RuleStep&) {}
    // Instead of the step that the forward led to: values are again what they were before it.
    virtual void turn_back(Parameter&) {}
    // What a validation reads instead of the value; undefined: the value.
    virtual at::Tensor averaged(const Parameter&, double /*weight*/) const { return {}; }

    // All by which this step differs from others. Of a rule that has them a step can be recorded, and run
    // again with others; empty: of this one it cannot.
    virtual std::vector<double> step_numbers(const RuleStep&) const { return {}; }

    // Everything that the next step depends on, sharing memory. Dimension 0 is divided like the parameter's:
    // the state of a part is a part of the whole parameter's.
    virtual std::vector<StateTensor> state() const = 0;

    // `fused`: with the operators for CPUs, otherwise ATen's.
    virtual RuleCost cost(bool fused) const = 0;

    int64_t state_bytes() const;
};

// The rule that `row` asks for, with what the config has around it. On the meta device it has shapes and
// costs, and takes no memory.
std::unique_ptr<UpdateRule> make_rule(const OptimizerConfig& config, const OptimParamConfig& row,
                                      const Parameter& part);

// The same for a whole parameter of this dtype on the meta device.
std::unique_ptr<UpdateRule> make_meta_rule(const OptimizerConfig& config, const OptimParamConfig& row,
                                           const ParamConfig& param, at::ScalarType dtype);

// "adam", the name of the rule of matrices, or "none".
std::string rule_name(const OptimizerConfig& config, OptimParamConfig::Rule rule);

struct MatrixRuleInput {
    const MatrixConfig& config;
    const OptimParamConfig& row;  // its matrix_view is that of `part`
    const Parameter& part;
};

// Makes rule `index` of matrix_rules; each that is no pipeline has a specialisation in its own file.
template <size_t index>
std::unique_ptr<UpdateRule> make_matrix_rule(const MatrixRuleInput& input);

}  // namespace speedrun
