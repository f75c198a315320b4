#pragma once
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "util/error.h"

// What the fused CPU paths share: tensors as rows, choice of the element type, and division of rows among
// threads.
namespace speedrun::ops::cpu {

// Whether the fused path takes this tensor; everything else goes to the ATen path.
inline bool fused(const at::Tensor& x) {
    return x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

// Calls body with a value of the element type.
template <class Body>
void with_dtype(at::ScalarType dtype, Body&& body) {
    check(dtype == at::kFloat || dtype == at::kBFloat16, "the fused CPU path takes fp32 or bf16");
    if (dtype == at::kFloat) return body(float{});
    body(at::BFloat16{});
}

template <class T>
T* data(const at::Tensor& x, const char* what) {
    check(x.is_cpu() && x.scalar_type() == c10::CppTypeToScalarType<std::remove_const_t<T>>::value, what);
    return static_cast<T*>(x.data_ptr());
}

// Data of a contiguous tensor of `count` elements.
template <class T>
T* flat(const at::Tensor& x, int64_t count, const char* what) {
    check(x.numel() == count && x.is_contiguous(), what);
    return data<T>(x, what);
}

// A tensor [T, ...] as T rows of contiguous elements.
template <class T>
struct Rows {
    T* start = nullptr;
    int64_t stride = 0;
    T* operator[](int64_t row) const { return start + row * stride; }
};

template <class T>
Rows<T> rows(const at::Tensor& x, at::IntArrayRef sizes, const char* what) {
    check(x.sizes() == sizes, what);
    int64_t expected = 1;
    for (int64_t dim = x.dim() - 1; dim >= 1; --dim) {
        check(x.size(dim) == 1 || x.stride(dim) == expected, what);
        expected *= x.size(dim);
    }
    return {data<T>(x, what), x.stride(0)};
}

inline int64_t row_length(const at::Tensor& x) {
    return x.size(0) == 0 ? 0 : x.numel() / x.size(0);
}

// Rows in at most 128 chunks of at least 16. The division does not depend on the number of threads, so
// neither do sums over rows whose partial sums, one set a chunk, are combined in order.
struct Chunks {
    Chunks(int64_t row_count, int64_t row_length)
        : rows(row_count),
          size(std::max<int64_t>(16, (row_count + 127) / 128)),
          count((row_count + size - 1) / size),
          grain(std::max<int64_t>(1, min_elements / std::max<int64_t>(1, size * row_length))) {}

    // Calls body(chunk, first row, row after the last) for every chunk, in parallel.
    template <class Body>
    void for_each(const Body& body) const {
        at::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
            for (int64_t chunk = begin; chunk < end; ++chunk) {
                body(chunk, chunk * size, std::min(rows, (chunk + 1) * size));
            }
        });
    }

    // Elements a thread should have: below, waking it costs more than it saves.
    static constexpr int64_t min_elements = 8192;

    int64_t rows, size, count, grain;  // rows in all and in a chunk; chunks in all and at least for a thread
};

// Calls body(row) for every row, in parallel.
template <class Body>
void for_each_row(int64_t row_count, int64_t row_length, const Body& body) {
    Chunks(row_count, row_length).for_each([&](int64_t, int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) body(row);
    });
}

}  // namespace speedrun::ops::cpu
