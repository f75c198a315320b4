#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "config/config.h"
#include "data/batch.h"
#include "optim/schedule.h"

namespace speedrun {

// The mixes of one kind.
struct MixKind {
    size_t sources = 0;
    size_t trained = 0;  // with a coefficient to train
    // Whose gradient backward computes. The others have the coefficient 1 and take the gradient over as it
    // is: that one of them may have a gradient already, and add to it, is not counted.
    size_t passed = 0;
    bool with_norm = false;
    auto operator<=>(const MixKind&) const = default;
};

// How often a micro-batch calls what.
struct PlanCounts {
    std::map<MixKind, double> mixes;             // by sources and norm alone
    std::map<MixKind, double> mix_backwards;     // without norm, which is counted beside it
    double short_windows = 0, long_windows = 0;  // layers of attention
    double gates = 0, mlps = 0;
    double norm_backwards = 1;  // the input's, and those of the mixes
    double attentions() const { return short_windows + long_windows; }
};

PlanCounts plan_counts(const ModelConfig& model);

// What rows about a micro-batch are made from. Everything it refers to outlives it and its copies.
struct PassShapes {
    PassShapes(const Config& config, const StepSettings& settings, const Batch& batch, at::Device device);

    const Config& config;
    const ModelConfig& model;
    const StepSettings& settings;
    const Batch& batch;
    at::Device device;
    PlanCounts counts;
    at::ScalarType act;  // dtype of activations
    int64_t tokens, d;   // of the micro-batch; d_model
    double one;          // bytes of an activation [tokens, d]
    double numbers;      // bytes of one fp32 number a token
    double passes;       // micro-batches of a step

    // "2048x256"
    std::string rows(int64_t width) const;
    // Normal numbers in the activations' dtype, or another; and one fp32 number a token.
    at::Tensor make(const std::vector<int64_t>& shape) const;
    at::Tensor make(const std::vector<int64_t>& shape, at::ScalarType dtype) const;
    at::Tensor make_numbers() const;
    at::Tensor ids() const;

    at::ScalarType dtype_of(const std::string& param) const;    // of its master and gradient
    at::ScalarType used_dtype(const std::string& param) const;  // of what forward reads
};

double bytes_of_item(at::ScalarType dtype);

}  // namespace speedrun
