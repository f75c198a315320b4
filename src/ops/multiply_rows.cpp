#include "ops/multiply_rows.h"

#include <ATen/ATen.h>

#include <string>

#include "ops/cpu/kernels.h"
#include "ops/cpu/rows.h"
#include "ops/cuda/addresses.h"
#include "ops/wide.h"
#include "util/error.h"

namespace speedrun::ops {
namespace {

void check_multiply_rows(const at::Tensor& from, const at::Tensor& table, const at::Tensor& ids,
                         const at::Tensor& to) {
    check(from.dim() == 2 && to.sizes() == from.sizes() && to.scalar_type() == from.scalar_type(),
          "multiply_rows: from and to are [T, d] of one dtype");
    check(table.dim() == 2 && table.size(1) == from.size(1) && ids.numel() == from.size(0),
          "multiply_rows: table is [R, d], ids [T]");
}

}  // namespace

void reference::multiply_rows(const at::Tensor& from, const at::Tensor& table, const at::Tensor& ids,
                              const at::Tensor& to) {
    check_multiply_rows(from, table, ids, to);
    const at::Tensor wide_from = wide(from);
    to.copy_(wide_from * table.index_select(0, ids).to(wide_from.scalar_type()));
}

void multiply_rows(const at::Tensor& from, const at::Tensor& table, const at::Tensor& ids,
                   const at::Tensor& to) {
    if (from.is_meta()) return;
    if (cuda::fused(from)) return cuda::multiply_rows(cuda::gpu_of(from), from, table, ids, to);
    if (!cpu::fused(from) || !cpu::fused(table)) return reference::multiply_rows(from, table, ids, to);
    check_multiply_rows(from, table, ids, to);
    const int64_t tokens = from.size(0), d = from.size(1);
    const int32_t* id = cpu::flat<const int32_t>(ids, tokens, "multiply_rows: ids");
    for (int64_t t = 0; t < tokens; ++t)
        check(id[t] >= 0 && id[t] < table.size(0), "multiply_rows: no such row: " + std::to_string(id[t]));
    cpu::with_dtype(from.scalar_type(), [&]<class T>(T) {
        cpu::with_dtype(table.scalar_type(), [&]<class S>(S) {
            const auto source = cpu::rows<const T>(from, from.sizes(), "multiply_rows: from");
            const auto factors = cpu::rows<const S>(table, table.sizes(), "multiply_rows: table");
            const auto target = cpu::rows<T>(to, from.sizes(), "multiply_rows: to");
            cpu::for_each_row(tokens, d, [&](int64_t t) {
                const T* const x = source[t];
                const S* const factor = factors[id[t]];
                T* const y = target[t];
#pragma omp simd
                for (int64_t i = 0; i < d; ++i) cpu::store(y[i], cpu::load(x[i]) * cpu::load(factor[i]));
            });
        });
    });
}

namespace cuda {

void multiply_rows(const Gpu& gpu, const at::Tensor& from, const at::Tensor& table, const at::Tensor& ids,
                   const at::Tensor& to) {
    check_multiply_rows(from, table, ids, to);
    check(ids.scalar_type() == at::kInt && ids.is_contiguous(), "multiply_rows: ids are not int32 [T]");
    gpu.kernels.multiply_rows(rows(from, from.sizes(), "multiply_rows: from"),
                              rows(table, table.sizes(), "multiply_rows: table"),
                              ids.const_data_ptr<int32_t>(), rows(to, from.sizes(), "multiply_rows: to"),
                              shape_of(from), gpu.stream);
}

}  // namespace cuda
}  // namespace speedrun::ops
