#include "ops/cuda/fused.h"

#include <ATen/ATen.h>

#include <string>

#include "ops/cuda/addresses.h"
#include "util/error.h"

namespace speedrun::ops::cuda {

void Fused::adam_update(const at::Tensor& value, const at::Tensor& grad, const at::Tensor& exp_avg,
                        const at::Tensor& exp_avg_sq, const at::Tensor& copy,
                        const raw::Adam& numbers) const {
    const int64_t count = value.numel();
    raw::Adam adam = numbers;
    adam.value = flat(value, count, "adam_update: value");
    adam.grad = flat(grad, count, "adam_update: grad");
    adam.exp_avg = flat(exp_avg, count, "adam_update: exp_avg");
    adam.exp_avg_sq = flat(exp_avg_sq, count, "adam_update: exp_avg_sq");
    adam.copy = flat(copy, count, "adam_update: copy");
    check(adam.value.type == adam.grad.type && adam.exp_avg.type == adam.exp_avg_sq.type,
          "adam_update: dtypes that do not agree");
    kernels_.adam(adam, count, stream_);
}

void Fused::gram(const at::Tensor& x, const at::Tensor& c, double alpha, double beta,
                 const at::Tensor& addend) const {
    check(x.dim() == 3 && takes_gram(x), "gram: x is not bf16 [n, rows, cols] of multiples of 8");
    const int64_t count = x.size(0), rows = x.size(1), elements = count * rows * rows;
    const auto address = [&](const at::Tensor& square, const char* what) {
        const raw::Flat found = flat(square, elements, what);
        check(found.type == raw::Scalar::bf16 && reinterpret_cast<uintptr_t>(found.data) % 16 == 0,
              std::string(what) + ": not bf16, or not aligned");
        return found.data;
    };
    raw::Gram gram;
    gram.x = x.const_data_ptr();
    gram.c = address(c, "gram: c");
    if (beta != 0) gram.addend = address(addend, "gram: addend");
    gram.alpha = static_cast<float>(alpha);
    gram.beta = static_cast<float>(beta);
    kernels_.gram(gram, count, {rows, x.size(2)}, stream_);
}

void Fused::momentum_update(const at::Tensor& grad, const at::Tensor& momentum, const at::Tensor& update,
                            const raw::Number& mu, bool lerp, bool nesterov) const {
    const int64_t count = grad.numel();
    check(grad.scalar_type() == momentum.scalar_type(),
          "momentum_update: gradient and momentum of one dtype");
    kernels_.momentum(flat(grad, count, "momentum_update: grad"),
                      flat(momentum, count, "momentum_update: momentum"),
                      flat(update, count, "momentum_update: update"), mu, lerp, nesterov, count, stream_);
}

void Fused::matrix_update(const at::Tensor& update, const at::Tensor& factors,
                          const at::Tensor& second_moment, const at::Tensor& value, const at::Tensor& copy,
                          const raw::MatrixUpdate& numbers) const {
    check(update.dim() == 3 && value.sizes() == update.sizes(),
          "matrix_update: update and value are [n, rows, cols]");
    const int64_t count = update.size(0), rows = update.size(1), cols = update.size(2);
    raw::MatrixUpdate step = numbers;
    step.update = flat(update, update.numel(), "matrix_update: update");
    step.value = flat(value, value.numel(), "matrix_update: value");
    step.copy = flat(copy, value.numel(), "matrix_update: copy");
    step.factors = floats(factors, count, "matrix_update: factors");
    const int64_t moments = count * (numbers.of_rows ? rows : cols);
    step.second_moment = flat(second_moment, moments, "matrix_update: second_moment");
    at::Tensor sums;
    if (second_moment.defined()) sums = at::empty({moments}, update.options().dtype(at::kFloat));
    step.sums = floats(sums, moments, "matrix_update: sums");
    kernels_.matrix_update(step, count, rows, cols, stream_);
}

}  // namespace speedrun::ops::cuda
