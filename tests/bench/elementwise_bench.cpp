// Bandwidth of the element-wise and row-wise ops beside that of a copy of one activation:
//   elementwise_bench [tokens [model_dim]]
// Each figure is the best of many calls, bytes being what the op must read and write.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "ops/cast.h"
#include "ops/embedding.h"
#include "ops/gate.h"
#include "ops/mix.h"
#include "ops/norm.h"
#include "ops/relu2.h"
#include "ops/rotary.h"
#include "ops/smear.h"

namespace {

using namespace speedrun;

constexpr double eps = 1e-7;

template <class Call>
void measure(const char* name, double bytes, const Call& call) {
    using Clock = std::chrono::steady_clock;
    double best = 1e9;
    for (int run = 0; run < 300; ++run) {
        const auto start = Clock::now();
        call();
        best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
    }
    std::printf("  %-28s %8.1f us %7.1f GB/s\n", name, best * 1e6, bytes / best * 1e-9);
}

struct Sizes {
    int64_t tokens, d;
};

void bench_rows(const Sizes& size, at::ScalarType dtype) {
    const auto make = [&](int64_t width) { return at::randn({size.tokens, width}, dtype); };
    const at::Tensor x = make(size.d), x0 = make(size.d), dy = make(size.d), y = make(size.d),
                     z = make(size.d);
    const at::Tensor rstd = at::ones({size.tokens}), c = at::ones({2}), dc = at::zeros({2});
    const auto one = static_cast<double>(x.nbytes());
    measure("copy of one activation", 2 * one, [&] { y.copy_(x); });
    measure("rms_norm", 2 * one, [&] { ops::rms_norm(x, eps, y, rstd); });
    measure("rms_norm_backward, added", 4 * one, [&] { ops::rms_norm_backward(dy, x, rstd, y, true); });
    const std::array<at::Tensor, 2> sources = {x, x0}, dsources = {y, z};
    measure("mix of 2", 3 * one, [&] { ops::mix(sources, c, y); });
    measure("mix_norm of 2", 4 * one, [&] { ops::mix_norm(sources, c, eps, y, z, rstd); });
    const std::array<uint8_t, 2> write = {0, 0}, wants = {1, 1};
    measure("mix_backward of 2", 5 * one,
            [&] { ops::mix_backward(dy, sources, c, dsources, write, dc, wants); });
    const at::Tensor wide = make(4 * size.d), dwide = make(4 * size.d), out = make(4 * size.d);
    measure("relu2, 4 d", 8 * one, [&] { ops::relu2(wide, out); });
    measure("relu2_backward, 4 d", 12 * one, [&] { ops::relu2_backward(dwide, wide, out); });
    const at::Tensor w = at::randn({12}), lambda = at::ones({1}), dw = at::zeros({12}),
                     dlambda = at::zeros({1});
    measure("smear", 2 * one, [&] { ops::smear(x, w, lambda, y, rstd); });
    measure("smear_backward", 3 * one, [&] { ops::smear_backward(dy, x, w, lambda, rstd, y, dw, dlambda); });
}

void bench_heads(const Sizes& size, at::ScalarType dtype) {
    const int64_t heads = std::max<int64_t>(1, size.d / 128), head_dim = size.d / heads;
    const at::Tensor qkv = at::randn({size.tokens, 3 * size.d}, dtype),
                     x = at::randn({size.tokens, size.d}, dtype);
    const at::Tensor q = qkv.narrow(1, 0, heads * head_dim).view({size.tokens, heads, head_dim});
    const at::Tensor y = at::randn({size.tokens, heads, head_dim}, dtype), dy = at::randn_like(y),
                     dx = at::zeros_like(x);
    const at::Tensor cos = at::rand({size.tokens, head_dim / 2}, at::kBFloat16), sin = at::rand_like(cos);
    const at::Tensor saved = at::ones({size.tokens, heads}), w = at::randn({heads, 12}),
                     dw = at::zeros_like(w);
    const auto one = static_cast<double>(y.nbytes());
    const auto tables = static_cast<double>(2 * cos.nbytes());
    measure("qk_norm_rotary", 2 * one + tables, [&] { ops::qk_norm_rotary(q, cos, sin, eps, y, saved); });
    measure("qk_norm_rotary_backward", 3 * one + tables,
            [&] { ops::qk_norm_rotary_backward(dy, q, cos, sin, saved, q); });
    measure("head_gate", 2 * one, [&] { ops::head_gate(y, x, w, dy, saved); });
    measure("head_gate_backward", 3 * one, [&] { ops::head_gate_backward(dy, y, x, w, saved, dy, dx, dw); });
}

void bench_tables(const Sizes& size, at::ScalarType dtype) {
    const at::Tensor table = at::randn({50304, size.d}, dtype),
                     rows = at::randn({size.tokens, size.d}, dtype);
    const at::Tensor ids = at::randint(50257, {size.tokens}, at::kInt);
    const at::Tensor fp32 = at::randn({size.tokens, size.d}), bf16 = fp32.to(at::kBFloat16);
    const auto one = static_cast<double>(rows.nbytes());
    measure("embedding", 2 * one, [&] { ops::embedding(table, ids, rows); });
    measure("embedding_backward", 3 * one, [&] { ops::embedding_backward(rows, ids, table); });
    measure("cast fp32 to bf16", static_cast<double>(fp32.nbytes() + bf16.nbytes()),
            [&] { ops::cast(fp32, bf16); });
}

}  // namespace

int main(int argc, char** argv) {
    const Sizes size = {argc > 1 ? std::stoll(argv[1]) : 2048, argc > 2 ? std::stoll(argv[2]) : 256};
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
        std::printf("%s, T %lld, d %lld, %d threads\n", at::toString(dtype),
                    static_cast<long long>(size.tokens), static_cast<long long>(size.d),
                    at::get_num_threads());
        bench_rows(size, dtype);
        bench_heads(size, dtype);
        bench_tables(size, dtype);
    }
}
