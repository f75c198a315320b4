#pragma once
// What MatrixPipeline is put together from. A new part is one file here and one row in parts/table.h.
#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "ops/optim/matrix_update.h"
#include "optim/rule.h"

namespace speedrun {

// What parts hand on in a step, for a group of matrices [n, rows, cols].
struct PipelineWork {
    int64_t begin = 0;                  // the group's first matrix among those of the rule
    at::Tensor grad;                    // for those that read it: as it came, in u's dtype
    at::Tensor u;                       // the update so far
    at::Tensor direction;               // u before it was orthogonalised
    at::Tensor value;                   // p
    at::Tensor factors, second_moment;  // as ops::apply_matrix_update takes them
    ops::MatrixStep step;               // what is left for that to do
    bool rests = false;                 // the value stays as it is in this step
    bool written = false;               // a part has written the value, and no step is left
    bool rescaled = false;              // a part has changed the value after the step

    // The group's matrices of a tensor of all.
    at::Tensor of(const at::Tensor& all) const;
    // Another direction in the momentum's place.
    void turn_to(const at::Tensor& other) { u = direction = other; }
    // u with everything done that would be left for the last kernel up to the step. fp32.
    const at::Tensor& settled();
};

// What varies from one step of a part to the next.
struct PartStep {
    int64_t t = 1;                         // as RuleStep has it
    int64_t run_step = 0;                  // as RuleStep has it
    std::vector<ops::StepNumber> numbers;  // the part's step_numbers()
};

// One part and its state. What is kept from one function to the next within a step is of the group at work.
class PipelinePart {
  public:
    virtual ~PipelinePart() = default;

    // Before the momentum: work.grad is the gradient itself, and may be replaced in place.
    virtual void prepare(PipelineWork&, const PartStep&) {}
    // Changes work.u, or what is left to be done to it.
    virtual void apply(PipelineWork& work, const PartStep& step) = 0;
    // After the value has moved.
    virtual void finish(PipelineWork&, const PartStep&) {}

    // Numbers by which this step differs from others; where it differs in more, steps are not `alike`, and
    // cannot be recorded.
    virtual std::vector<double> step_numbers(const RuleStep&) const { return {}; }
    virtual bool alike() const { return true; }
    virtual bool reads_gradient() const { return false; }
    virtual bool reads_fp32() const { return false; }  // otherwise u comes in orthogonalize.dtype

    // As UpdateRule has it.
    virtual std::vector<StateTensor> state() const { return {}; }
    // Of one matrix.
    virtual RuleCost cost() const { return {}; }
};

// Makes part `index` of pipeline_parts; each has a specialisation in its own file.
template <size_t index>
std::unique_ptr<PipelinePart> make_pipeline_part(const MatrixRuleInput& input);

// A number of this step as a tensor, fp64, of no dimensions.
at::Tensor as_tensor(const ops::StepNumber& number, at::Device device);

// x times a number of this step.
at::Tensor times(const at::Tensor& x, const ops::StepNumber& number);

// The numbers of each matrix, or of each row, [n, ...], so that they multiply matrices [n, rows, cols].
at::Tensor of_matrices(const at::Tensor& numbers);

// <a, b> of each pair of matrices: [n], fp32.
at::Tensor inner_products(const at::Tensor& a, const at::Tensor& b);

}  // namespace speedrun
