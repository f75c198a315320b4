#include "ops/cpu/brgemm.h"

#include <ATen/native/CPUBlas.h>
#include <c10/util/Exception.h>

#include <array>

namespace speedrun::ops::cpu {

namespace {

bool try_bf16_brgemm() {
    // Without these instructions oneDNN does not refuse but ends the program.
    if (!__builtin_cpu_supports("avx512bf16")) return false;
    constexpr int64_t n = 16;
    std::array<at::BFloat16, n * n> a, b;
    std::array<float, n * n> c{};
    a.fill(at::BFloat16(1.0F));
    b.fill(at::BFloat16(2.0F));
    try {
        at::native::cpublas::brgemm(n, n, n, n, n, n, false, a.data(), b.data(), c.data(), true);
        at::native::cpublas::brgemm_release(true);
    } catch (const c10::Error&) {
        return false;  // "only supported when oneDNN ukernel is enabled and avx512_core is supported"
    }
    for (const float value : c) {
        if (value != 2.0F * n) return false;
    }
    return true;
}

}  // namespace

bool has_bf16_brgemm() {
    static const bool result = try_bf16_brgemm();
    return result;
}

void brgemm(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb,
            float* c, int64_t ldc, bool accumulate) {
    at::native::cpublas::brgemm(m, n, k, lda, ldb, ldc, accumulate, a, b, c, false);
}

void brgemm(int64_t m, int64_t n, int64_t k, const at::BFloat16* a, int64_t lda, const at::BFloat16* b,
            int64_t ldb, float* c, int64_t ldc, bool accumulate) {
    at::native::cpublas::brgemm(m, n, k, lda, ldb, ldc, accumulate, a, b, c, true);
}

BrgemmScope::~BrgemmScope() {
    at::native::cpublas::brgemm_release(has_bf16_brgemm());
}

}  // namespace speedrun::ops::cpu
