#include "optim/parts/part.h"

#include <ATen/ATen.h>

namespace speedrun {

at::Tensor PipelineWork::of(const at::Tensor& all) const {
    return all.defined() ? all.narrow(0, begin, value.size(0)) : all;
}

const at::Tensor& PipelineWork::settled() {
    u = ops::reference::scaled_update(u, factors, second_moment, step);
    factors.reset();
    step.moments = false;
    step.factor = 1;
    return u;
}

at::Tensor as_tensor(const ops::StepNumber& number, at::Device device) {
    return number.place.defined() ? number.place.view(at::IntArrayRef{})
                                  : at::full({}, number.value, at::device(device).dtype(at::kDouble));
}

at::Tensor times(const at::Tensor& x, const ops::StepNumber& number) {
    return number.place.defined() ? x * number.place.view(at::IntArrayRef{}) : x * number.value;
}

at::Tensor of_matrices(const at::Tensor& numbers) {
    return numbers.view({-1, 1, 1});
}

at::Tensor inner_products(const at::Tensor& a, const at::Tensor& b) {
    return (a * b).sum(at::IntArrayRef{-2, -1}, false, at::kFloat);
}

}  // namespace speedrun
