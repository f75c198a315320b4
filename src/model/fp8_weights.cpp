#include "model/fp8_weights.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "ops/dtype.h"

namespace speedrun {
namespace {

// Elements of the largest weight whose bytes are turned: those of one at a time lie beside it meanwhile.
int64_t largest_turned(const Graph& graph) {
    int64_t most = 0;
    for (const Fp8Weight& weight : graph.fp8_weights())
        if (weight.turned) most = std::max(most, weight.in() * weight.out());
    return most;
}

at::Tensor element(const at::Tensor& numbers, int64_t index) {
    return numbers.narrow(0, index, 1);
}

}  // namespace

Fp8Weights::Fp8Weights(const NumericsConfig& numerics, const Graph& graph, at::Device device)
    : down_(numerics.mlp.down) {
    const int64_t count = std::ssize(graph.fp8_weights());
    if (count == 0) return;
    const auto own = scalar_type(numerics.activations), storage = ops::fp8_storage(device, own);
    const auto options = at::device(device).dtype(storage);
    const bool bytes = storage != own;
    const at::Tensor staging = at::empty({bytes ? largest_turned(graph) : 0}, options);
    for (const Fp8Weight& use : graph.fp8_weights()) {
        const int64_t in = use.in(), out = use.out();
        if (!use.turned) {
            const at::Tensor codes = at::empty({out, in}, options);
            entries_.push_back({use, codes, codes});
        } else if (bytes) {
            const at::Tensor stored = staging.narrow(0, 0, in * out).view({in, out});
            entries_.push_back({use, at::empty({out, in}, options), stored});
        } else {
            const at::Tensor stored = at::empty({in, out}, options);
            entries_.push_back({use, stored.t(), stored});
        }
    }
    scales_ = at::ones({count}, at::device(device).dtype(at::kFloat));
    next_scales_ = at::ones_like(scales_);
    activation_scales_ = at::ones_like(scales_);
}

void Fp8Weights::start(const Used& used) {
    if (empty()) return;
    activation_scales_.fill_(1);
    for (int64_t i = 0; i < std::ssize(entries_); ++i) quantize(used, i, ops::Fp8WeightScale::exact);
}

void Fp8Weights::follow(const Used& used, int64_t step) {
    for (int64_t i = 0; i < std::ssize(entries_); ++i) {
        const bool exact = !entries_[static_cast<size_t>(i)].use.delayed || step < down_.exact_weight_steps;
        quantize(used, i, exact ? ops::Fp8WeightScale::exact : ops::Fp8WeightScale::delayed);
    }
}

void Fp8Weights::restore(const Used& used) {
    for (int64_t i = 0; i < std::ssize(entries_); ++i) quantize(used, i, ops::Fp8WeightScale::given);
}

void Fp8Weights::quantize(const Used& used, int64_t index, ops::Fp8WeightScale which) {
    const Entry& entry = entries_[static_cast<size_t>(index)];
    const auto order = entry.use.delayed ? ops::Fp8Order::divided : ops::Fp8Order::divided_in_dtype;
    ops::fp8_quantize_weight(used(entry.use.weight), which, order, down_.weight_headroom,
                             element(scales_, index), element(next_scales_, index), entry.stored);
    if (!entry.codes.is_alias_of(entry.stored)) ops::fp8_transpose(entry.stored, entry.codes);
}

ops::Fp8Matrix Fp8Weights::matrix(int64_t index) const {
    return {entries_[static_cast<size_t>(index)].codes, element(scales_, index)};
}

void Fp8Weights::multiply(const at::Tensor& x, int64_t index, const at::Tensor& y) const {
    ops::fp8_product_now(x, matrix(index), y);
}

void Fp8Weights::multiply_relu2(const at::Tensor& pre, const at::Tensor& post, int64_t index,
                                const at::Tensor& y) const {
    ops::fp8_relu2_product(pre, post, element(activation_scales_, index), down_.act_headroom, matrix(index),
                           y);
}

int64_t fp8_weight_bytes(const Graph& graph, int64_t item) {
    int64_t bytes = 0;
    for (const Fp8Weight& weight : graph.fp8_weights())
        bytes += weight.in() * weight.out() * item + 3 * static_cast<int64_t>(sizeof(float));
    return bytes + (item == 1 ? largest_turned(graph) : 0);
}

}  // namespace speedrun
