#include "ops/cuda/gram.h"

#include <string>

#include "ops/cuda/addresses.h"
#include "util/error.h"

namespace speedrun::ops::cuda {

bool takes_gram(const at::Tensor& x) {
    return x.scalar_type() == at::kBFloat16 && x.is_contiguous() && x.size(-1) % 8 == 0 &&
           x.size(-2) % 8 == 0 && reinterpret_cast<uintptr_t>(x.const_data_ptr()) % 16 == 0;
}

void gram(const Gpu& gpu, const at::Tensor& x, const at::Tensor& c, double alpha, double beta,
          const at::Tensor& addend) {
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
    gpu.kernels.gram(gram, count, {rows, x.size(2)}, gpu.stream);
}

}  // namespace speedrun::ops::cuda
