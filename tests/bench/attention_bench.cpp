// Times attention: forward and backward, as a share of what brgemm alone does on tiles of the same size, and
// against at::scaled_dot_product_attention with a dense mask and autograd. Each figure is the minimum over a
// second of runs.
//   attention_bench [dense] [cpu]
// dense: also SDPA, at T = 2048. cpu: CPU time instead of wall time, for a busy machine (with
// OMP_NUM_THREADS=1).
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <set>
#include <string>
#include <vector>

#include "ops/attention/attention.h"
#include "ops/attention/cpu/attention_plan.h"
#include "ops/cpu/brgemm.h"

namespace {

using namespace speedrun::ops;
using cpu::kBlock;

bool cpu_time = false;

double now() {
    if (cpu_time) return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

template <class F>
double seconds(const F& f, double budget = 1.0) {
    f();
    double best = 1e9, total = 0;
    while (total < budget) {
        const double start = now();
        f();
        const double elapsed = now() - start;
        best = std::min(best, elapsed);
        total += elapsed;
    }
    return best;
}

// FLOP/s of all threads on products [kBlock, D] [D, kBlock] that stay in cache.
template <class T>
double peak(int64_t D) {
    const int64_t threads = at::get_num_threads(), repeats = 500;
    const auto dtype = c10::CppTypeToScalarType<T>::value;
    const at::Tensor a = at::ones({threads, kBlock, D}, dtype), b = at::ones({threads, D, kBlock}, dtype);
    const at::Tensor c = at::zeros({threads, kBlock, kBlock}, at::kFloat);
    const double time = seconds([&] {
        at::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
            const cpu::BrgemmScope scope;
            for (int64_t t = begin; t < end; ++t) {
                for (int64_t i = 0; i < repeats; ++i) {
                    cpu::brgemm(kBlock, kBlock, D, a.const_data_ptr<T>() + t * kBlock * D, D,
                                b.const_data_ptr<T>() + t * kBlock * D, kBlock,
                                c.mutable_data_ptr<float>() + t * kBlock * kBlock, kBlock, false);
                }
            }
        });
    });
    return 2.0 * static_cast<double>(kBlock * kBlock * D * threads * repeats) / time;
}

struct Shape {
    int64_t T, H, D, window;
    int32_t document;
};

std::vector<int32_t> boundaries(const Shape& s) {
    std::vector<int32_t> cu;
    for (int32_t t = 0; t < s.T; t += s.document) cu.push_back(t);
    cu.insert(cu.end(), 4, static_cast<int32_t>(s.T));
    return cu;
}

struct Call {
    Call(const Shape& s, at::ScalarType dtype)
        : qkv(at::randn({s.T, 3, s.H, s.D}).to(dtype)),
          dqkv(at::empty_like(qkv)),
          out(at::empty({s.T, s.H, s.D}, dtype)),
          dout(at::randn({s.T, s.H, s.D}).to(dtype)),
          lse(at::empty({s.H, s.T})),
          mask{at::tensor(boundaries(s), at::TensorOptions(at::kInt)), s.window} {}

    void forward() const {
        attention_forward(qkv.select(1, 0), qkv.select(1, 1), qkv.select(1, 2), mask, 0.1, out, lse);
    }
    void backward() const {
        attention_backward(dout, qkv.select(1, 0), qkv.select(1, 1), qkv.select(1, 2), out, lse, mask, 0.1,
                           {dqkv.select(1, 0), dqkv.select(1, 1), dqkv.select(1, 2)});
    }

    at::Tensor qkv, dqkv, out, dout, lse;
    AttentionMask mask;
};

double visited(const Shape& s) {
    double blocks = 0;
    for (const auto& range : cpu::key_blocks(cpu::first_keys(boundaries(s), s.T, s.window))) {
        blocks += static_cast<double>(range.end - range.begin);
    }
    return blocks * static_cast<double>(s.H);
}

void bench(const Shape& s, at::ScalarType dtype) {
    const Call call(s, dtype);
    const double flop = visited(s) * 2.0 * static_cast<double>(kBlock * kBlock * s.D);
    const double top = dtype == at::kFloat ? peak<float>(s.D) : peak<at::BFloat16>(s.D);
    const double forward = seconds([&] { call.forward(); }), backward = seconds([&] { call.backward(); });
    std::printf(
        "%s T %5ld H %ld D %3ld window %4ld documents %5d: forward %7.2f ms %4.0f %%, backward %7.2f ms "
        "%4.0f %% of "
        "%.0f GFLOP/s\n",
        dtype == at::kFloat ? "fp32" : "bf16", s.T, s.H, s.D, s.window, s.document, forward * 1e3,
        200 * flop / forward / top, backward * 1e3, 500 * flop / backward / top, top * 1e-9);
}

// The same, as one would write it with ATen alone.
void bench_dense(const Shape& s, at::ScalarType dtype) {
    const Call call(s, dtype);
    const auto first = cpu::first_keys(boundaries(s), s.T, s.window);
    const at::Tensor oldest = at::tensor(first, at::TensorOptions(at::kInt)).unsqueeze(1),
                     key = at::arange(s.T);
    const at::Tensor mask = key.ge(oldest) & key.le(key.unsqueeze(1));
    const at::Tensor leaf = call.qkv.detach().clone().requires_grad_();
    const auto head_first = [&](int64_t i) { return leaf.select(1, i).transpose(0, 1).unsqueeze(0); };
    const double dense = seconds([&] {
        leaf.mutable_grad() = at::Tensor();
        const at::Tensor out = at::scaled_dot_product_attention(head_first(0), head_first(1), head_first(2),
                                                                mask, 0.0, false, 0.1);
        out.backward(call.dout.transpose(0, 1).unsqueeze(0));
    });
    const double ours = seconds([&] {
        call.forward();
        call.backward();
    });
    std::printf(
        "%s T %ld H %ld D %ld window %ld documents %d, forward + backward: SDPA with a dense mask %.1f ms, "
        "attention %.2f ms, %.1f times as fast\n",
        dtype == at::kFloat ? "fp32" : "bf16", s.T, s.H, s.D, s.window, s.document, dense * 1e3, ours * 1e3,
        dense / ours);
}

}  // namespace

int main(int argc, char** argv) {
    const std::set<std::string> wanted(argv + 1, argv + argc);
    cpu_time = wanted.contains("cpu");
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        for (const Shape& s : std::vector<Shape>{{2048, 4, 64, 96, 2048},
                                                 {2048, 4, 64, 384, 300},
                                                 {32768, 6, 128, 384, 2048},
                                                 {32768, 6, 128, 384, 500},
                                                 {8192, 6, 128, 2560, 8192}}) {
            bench(s, dtype);
        }
        if (wanted.contains("dense")) {
            for (const int64_t window : {96, 384}) bench_dense({2048, 4, 64, window, 2048}, dtype);
        }
    }
}
