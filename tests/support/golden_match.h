#pragma once
// The numbers of tests/golden/record43.json against tensors: checksums of the whole (sum, l2, projection on
// fixed weights) and 8 samples of each, with the file's tolerances.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support/golden_inputs.h"
#include "util/safetensors.h"

namespace speedrun {

using nlohmann::json;

inline json read_json(const std::filesystem::path& path) {
    std::ifstream in(path);
    return json::parse(in);
}

inline double at_checksum(const at::Tensor& x, const std::string& kind) {
    if (kind == "sum") return x.sum().item<double>();
    if (kind == "l2") return x.norm().item<double>();
    double projection = 0;
    const double* values = x.const_data_ptr<double>();
    for (int64_t i = 0; i < x.numel(); ++i) {
        const auto w = static_cast<uint32_t>(static_cast<uint64_t>(i) * 2654435761U + 12345U);
        projection += values[i] * (w * 0x1p-31 - 1);
    }
    return projection;
}

// By how much a checksum is beyond its tolerance, at most; 0 where none is.
inline double excess_of(const json& golden, const at::Tensor& tensor) {
    const at::Tensor x = tensor.detach().to(at::kDouble).contiguous().view(-1);
    double excess = 0;
    for (const std::string kind : {"sum", "l2", "proj"})
        excess = std::max(excess, std::abs(at_checksum(x, kind) - golden.at("f64").at(kind).get<double>()) -
                                      golden.at("tol").at(kind).get<double>());
    return excess;
}

inline void expect_matches(const json& golden, const at::Tensor& tensor, const std::string& what) {
    const at::Tensor x = tensor.detach().to(at::kDouble).contiguous().view(-1);
    const json& f64 = golden.at("f64");
    const json& tol = golden.at("tol");
    for (const std::string kind : {"sum", "l2", "proj"})
        EXPECT_NEAR(at_checksum(x, kind), f64.at(kind).get<double>(), tol.at(kind).get<double>())
            << what << ' ' << kind;
    const int64_t n = x.numel();
    int beyond = 0;
    for (int64_t k = 0; k < 8; ++k) {
        const double value = x[((2 * k + 1) * n / 16 + 37 * k + 5) % n].item<double>();
        const double distance = std::abs(value - f64.at("samples").at(static_cast<size_t>(k)).get<double>());
        beyond += !(distance <= tol.at("sample").get<double>());
        EXPECT_LE(distance, tol.at("outlier").get<double>()) << what << " sample " << k;
    }
    EXPECT_LE(beyond, 1) << what << ": samples beyond tol.sample";
}

// The golden run's initial weights.
inline void write_initial_weights(const std::filesystem::path& path) {
    const auto parameters = golden::init_params();
    std::vector<SafeTensor> tensors;
    for (const auto& p : parameters)
        tensors.push_back({p.name, "F32", p.shape, std::as_bytes(std::span(p.values))});
    write_safetensors(path, tensors);
}

}  // namespace speedrun
