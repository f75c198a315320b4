#include "ops/cast.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <type_traits>

#include "ops/cpu/kernels.h"
#include "ops/cpu/rows.h"

namespace speedrun::ops {

void reference::cast(const at::Tensor& src, const at::Tensor& dst) {
    dst.copy_(src);
}

void cast(const at::Tensor& src, const at::Tensor& dst) {
    if (!cpu::fused(src) || !cpu::fused(dst)) return reference::cast(src, dst);
    constexpr int64_t grain = 32768;  // elements below which a second thread costs more than it saves
    const int64_t count = src.numel();
    cpu::with_dtype(src.scalar_type(), [&]<class From>(From) {
        cpu::with_dtype(dst.scalar_type(), [&]<class To>(To) {
            const From* from = cpu::flat<const From>(src, count, "cast: src");
            To* to = cpu::flat<To>(dst, count, "cast: dst");
            at::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
                if constexpr (std::is_same_v<From, To>) {
                    std::copy(from + begin, from + end, to + begin);
                } else {
                    cpu::scale(from + begin, 1.0F, to + begin, end - begin);
                }
            });
        });
    });
}

}  // namespace speedrun::ops
