#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "ops/cpu/convert.h"
#include "ops/cpu/rows.h"

namespace speedrun::ops::cpu {

// Sums over rows of `width` numbers: one fp32 set a chunk, combined in the order of the chunks.
class Partials {
  public:
    Partials(const Chunks& chunks, int64_t width)
        : chunks_(chunks.count), width_(width), sums_(static_cast<size_t>(chunks.count * width)) {}

    float* operator[](int64_t chunk) { return sums_.data() + chunk * width_; }

    // to[i] += the sums first + i over all chunks; to is contiguous, fp32 or bf16, and is rounded once.
    void add_to(const at::Tensor& to, int64_t first, int64_t count, const char* what) const {
        with_dtype(to.scalar_type(), [&]<class T>(T) {
            T* out = flat<T>(to, count, what);
            for (int64_t i = 0; i < count; ++i) {
                double sum = load(out[i]);
                for (int64_t c = 0; c < chunks_; ++c)
                    sum += sums_[static_cast<size_t>(c * width_ + first + i)];
                store(out[i], static_cast<float>(sum));
            }
        });
    }

  private:
    int64_t chunks_, width_;
    std::vector<float> sums_;
};

}  // namespace speedrun::ops::cpu
