#pragma once
// Inputs and checks of tests/golden/track3_optimizers.json: the optimizers of track 3's results, in fp64.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support/golden_inputs.h"

namespace speedrun::track3_golden {

using Json = nlohmann::json;

inline const Json& file() {
    static const Json file =
        Json::parse(std::ifstream(SPEEDRUN_SOURCE_DIR "/tests/golden/track3_optimizers.json"));
    return file;
}

// sqrt(12) std (uniform - 0.5), fp64, in C order.
inline at::Tensor drawn(const std::string& name, at::IntArrayRef shape, double std) {
    const golden::Uniform uniform(name);
    at::Tensor out = at::empty(shape, at::kDouble);
    for (int64_t i = 0; i < out.numel(); ++i)
        out.data_ptr<double>()[i] = std * std::sqrt(12) * (uniform(static_cast<uint64_t>(i)) - 0.5);
    return out;
}

// "tall" of "tall_warm": what the names of inputs have.
inline std::string base_of(const std::string& name) {
    return name.substr(0, name.find('_'));
}

// Zero where the case says so; rows of a matrix are 7, 1, 4, 7, ... times as large.
inline at::Tensor initial(const std::string& name, at::IntArrayRef shape) {
    if (name.ends_with("_zero")) return at::zeros(shape);
    at::Tensor p = drawn("p." + base_of(name), shape, 0.1);
    for (int64_t i = 0; shape.size() > 1 && i < shape[0]; ++i)
        p[i].mul_(static_cast<double>(1 + 3 * ((i + 2) % 3)));
    return p.to(at::kFloat);
}

// Of step k, from 0.
inline at::Tensor gradient(const std::string& name, at::IntArrayRef shape, int64_t k) {
    const std::string base = base_of(name);
    const at::Tensor g =
        drawn("g0." + base, shape, 0.3) + drawn("g." + base + "." + std::to_string(k), shape, 0.5);
    return (g * (1 + static_cast<double>(k % 3) / 2)).to(at::kFloat);
}

// sum, l2, the largest magnitude, a sum with given weights, and eight entries.
inline std::vector<double> figures(const at::Tensor& x) {
    const at::Tensor flat = x.to(at::kDouble).contiguous().view(-1);
    const double* const at = flat.const_data_ptr<double>();
    const int64_t n = flat.numel();
    double projection = 0;
    for (int64_t i = 0; i < n; ++i) {
        const auto weight = static_cast<uint32_t>(static_cast<uint64_t>(i) * 2654435761U + 12345U);
        projection += at[i] * (static_cast<double>(weight) * 0x1p-31 - 1);
    }
    std::vector<double> found{flat.sum().item<double>(), flat.norm().item<double>(),
                              flat.abs().max().item<double>(), projection};
    for (int64_t k = 0; k < 8; ++k) found.push_back(at[((2 * k + 1) * n / 16 + 37 * k + 5) % n]);
    return found;
}

// The file's tolerances are ten times what two fp32 runs of the published code are apart from fp64. One of
// the samples may be an outlier.
inline void expect_figures(const at::Tensor& x, const Json& want, const std::string& what) {
    const std::vector<double> got = figures(x), values = want["values"].get<std::vector<double>>();
    const auto tol = want["tol"].get<std::array<double, 5>>();
    const auto& [sum, l2, projection, sample, outlier] = tol;
    const double largest = std::max(sample, outlier);
    const std::array bounds{sum, l2, largest, projection};
    for (size_t i = 0; i < bounds.size(); ++i)
        EXPECT_NEAR(got[i], values[i], bounds[i]) << what << ", figure " << i;
    int outliers = 0;
    for (size_t i = bounds.size(); i < got.size(); ++i) {
        EXPECT_NEAR(got[i], values[i], largest) << what << ", sample " << i - bounds.size();
        outliers += std::abs(got[i] - values[i]) > sample ? 1 : 0;
    }
    EXPECT_LE(outliers, 1) << what;
}

}  // namespace speedrun::track3_golden
