#pragma once
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

// What the tests of the row-wise ops share: inputs of odd shapes, and comparison with fp64 within derived
// bounds.
namespace speedrun::ops::testing {

// The eps of every RMS norm: that of fp32.
constexpr double eps = 1.1920928955078125e-07;

// Unit roundoff of a store of this type.
inline double store_unit(at::ScalarType dtype) {
    return dtype == at::kBFloat16 ? std::ldexp(1.0, -8) : std::ldexp(1.0, dtype == at::kDouble ? -53 : -24);
}

// Unit roundoff of the arithmetic: fp32 but for fp64 tensors.
inline double arithmetic_unit(at::ScalarType dtype) {
    return std::ldexp(1.0, dtype == at::kDouble ? -53 : -24);
}

// The type of saved statistics and gates.
inline at::ScalarType saved_type(at::ScalarType dtype) {
    return dtype == at::kDouble ? at::kDouble : at::kFloat;
}

// Normal numbers as rows of `d` that are a slice of rows of 3 d + 1, or not; `rest` tells whether the
// surroundings are as they were.
struct Buffer {
    Buffer(int64_t tokens, int64_t d, at::ScalarType dtype, bool strided)
        : whole(at::randn({tokens, strided ? 3 * d + 1 : d}, dtype)),
          view(whole.narrow(1, strided ? d : 0, d)),
          before(whole.clone()) {}

    // Puts the first values back.
    void reset() const { whole.copy_(before); }

    bool rest_untouched() const {
        const at::Tensor now = whole.clone();
        const int64_t start = view.storage_offset(), d = view.size(1);
        now.narrow(1, start, d).copy_(before.narrow(1, start, d));
        return at::equal(now, before);
    }

    at::Tensor whole, view, before;
};

struct Setting {
    int64_t tokens, d;
    at::ScalarType dtype;
    bool strided;

    double store() const { return store_unit(dtype); }
    double arithmetic() const { return arithmetic_unit(dtype); }
    at::ScalarType saved() const { return saved_type(dtype); }
    Buffer buffer() const { return {tokens, d, dtype, strided}; }
    at::Tensor saved_rows(at::IntArrayRef sizes) const { return at::empty(sizes, saved()); }
};

// Runs body over shapes, element types (fp64 goes to the ATen path) and row strides.
template <class Body>
void for_each_setting(const std::vector<std::pair<int64_t, int64_t>>& shapes, const Body& body) {
    at::manual_seed(1);
    for (const auto& [tokens, d] : shapes) {
        for (const auto dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
            for (const bool strided : {false, true}) {
                SCOPED_TRACE("T " + std::to_string(tokens) + " d " + std::to_string(d) + " " +
                             at::toString(dtype) + (strided ? " strided" : ""));
                body(Setting{tokens, d, dtype, strided});
            }
        }
    }
}

// One row, fewer rows than a chunk, several chunks, chunks of more than 16 rows; widths around the vectors'
// length.
inline const std::vector<std::pair<int64_t, int64_t>> row_shapes = {{1, 12},   {7, 12},  {7, 20},
                                                                    {33, 131}, {40, 64}, {2100, 8}};

inline at::Tensor wide(const at::Tensor& x) {
    return x.detach().to(at::kDouble, /*non_blocking=*/false, /*copy=*/true);
}
inline at::Tensor leaf(const at::Tensor& x) {
    return wide(x).requires_grad_(true);
}

// |actual - expected| <= bound, element by element.
inline void expect_within(const at::Tensor& actual, const at::Tensor& expected, const at::Tensor& bound,
                          const char* what) {
    const at::Tensor error = (wide(actual) - wide(expected).view(actual.sizes())).abs();
    const at::Tensor excess = error - wide(bound).expand_as(wide(expected)).reshape(actual.sizes());
    EXPECT_TRUE((excess <= 0).all().item<bool>())  // false for NaN too
        << what << ": error " << error.max().item<double>() << ", " << excess.max().item<double>()
        << " above its bound";
}

// Runs `compute` (which returns its outputs) again, and on one thread: the bits must be the same.
template <class Compute>
void expect_repeatable(const Compute& compute) {
    const std::vector<at::Tensor> first = compute();
    const auto expect_same = [&](const char* what) {
        const std::vector<at::Tensor> again = compute();
        for (size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(at::equal(first[i], again[i])) << what << i;
    };
    expect_same("second run, output ");
    const int threads = at::get_num_threads();
    at::set_num_threads(threads == 1 ? 2 : 1);
    expect_same("other number of threads, output ");
    at::set_num_threads(threads);
}

}  // namespace speedrun::ops::testing
