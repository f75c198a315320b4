#include "ops/affine.h"

#include <ATen/ATen.h>

#include <string>

#include "util/error.h"

namespace speedrun::ops {
namespace {

constexpr int64_t chunk = 4096;  // tokens whose products exist in wide numbers at a time

at::ScalarType sum_type(const at::Tensor& x) {
    return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

void check_channels(const at::Tensor& rows, const at::Tensor& channels, const char* op) {
    check(rows.dim() == 2 && channels.dim() == 1 && channels.size(0) == rows.size(1),
          std::string(op) + ": rows are not [T, C] or channels not [C]");
}

}  // namespace

void multiply_gain(const at::Tensor& x, const at::Tensor& gain, const at::Tensor& y) {
    check_channels(x, gain, "multiply_gain");
    if (x.is_meta()) return;
    at::Tensor to = y;
    at::mul_out(to, x, gain);
}

void multiply_gain_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& gain,
                            const at::Tensor& dx, bool accumulate, const at::Tensor& dgain) {
    check_channels(dy, gain, "multiply_gain_backward");
    if (dy.is_meta()) return;
    at::Tensor to = dx, sum = at::zeros(gain.sizes(), gain.options().dtype(sum_type(dy)));
    for (int64_t begin = 0; begin < dy.size(0); begin += chunk) {
        const at::Tensor part = dy.slice(0, begin, begin + chunk).to(sum_type(dy));
        sum.add_((part * x.slice(0, begin, begin + chunk)).sum(0));
    }
    at::Tensor(dgain).add_(sum);
    if (accumulate)
        to.addcmul_(dy, gain.expand_as(dy));
    else
        at::mul_out(to, dy, gain);
}

void add_bias(const at::Tensor& y, const at::Tensor& bias) {
    check_channels(y, bias, "add_bias");
    if (!y.is_meta()) at::Tensor(y).add_(bias);
}

void add_bias_backward(const at::Tensor& dy, const at::Tensor& dbias) {
    check_channels(dy, dbias, "add_bias_backward");
    if (!dy.is_meta()) at::Tensor(dbias).add_(dy.sum(0, /*keepdim=*/false, sum_type(dy)));
}

}  // namespace speedrun::ops
