// Times gemm, batched_gemm and head_loss against plain ATen: minimum over the runs that fit in a second each.
//   ops_bench [gemm] [batched] [head] [cpu]
// "cpu" counts processor time instead of wall time: with OMP_NUM_THREADS=1, figures of one core on a busy
// machine.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "ops/gemm.h"
#include "ops/head_loss.h"

namespace {

using namespace speedrun::ops;

bool count_cpu_time = false;

double now() {
    timespec t{};
    clock_gettime(count_cpu_time ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

template <class F>
double seconds(const F& f, double budget = 1.0) {
    f();
    double best = 1e9, total = 0;
    for (int run = 0; run < 3 || (total < budget && run < 1000); ++run) {
        const double start = now();
        f();
        const double elapsed = now() - start;
        best = std::min(best, elapsed);
        total += elapsed;
    }
    return best;
}

const char* name(at::ScalarType dtype) {
    return dtype == at::kFloat ? "fp32" : "bf16";
}

void bench_gemm() {
    struct Case {
        int64_t m, n, k;
        bool transpose_a, transpose_b, accumulate;
    };
    std::printf("%-34s %10s %10s  GFLOP/s\n", "gemm (c fp32 in, fp32 or bf16 out)", "speedrun", "ATen");
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        for (const auto& [m, n, k, ta, tb, acc] : std::vector<Case>{{2048, 768, 256, false, true, false},
                                                                    {2048, 1024, 256, false, false, false},
                                                                    {2048, 256, 1024, false, true, false},
                                                                    {4096, 1024, 256, false, false, false},
                                                                    {768, 256, 2048, true, false, true},
                                                                    {256, 1024, 2048, true, false, true},
                                                                    {1024, 768, 768, false, true, false},
                                                                    {1024, 3072, 768, false, false, false},
                                                                    {1024, 768, 3072, false, true, false},
                                                                    {2048, 128, 128, false, true, false}}) {
            const at::Tensor a = ta ? at::randn({k, m}).to(dtype).t() : at::randn({m, k}).to(dtype);
            const at::Tensor b = tb ? at::randn({n, k}).to(dtype).t() : at::randn({k, n}).to(dtype);
            at::Tensor c = at::zeros({m, n}, acc ? at::kFloat : dtype), d = at::zeros({m, n}, dtype);
            const double flop = 2e-9 * static_cast<double>(m * n * k);
            const double ours = seconds([&] { gemm(a, b, c, acc); });
            const double aten = seconds([&] { acc ? d.addmm_(a, b) : at::mm_out(d, a, b); });
            std::printf("%s %5ld %5ld %5ld %s%s%-10s %10.0f %10.0f\n", name(dtype), m, n, k, ta ? "T" : "N",
                        tb ? "T" : "N", acc ? " add" : "", flop / ours, flop / aten);
        }
    }
}

void bench_batched() {
    std::printf("%-34s %10s %10s  GFLOP/s\n", "batched_gemm", "speedrun", "ATen");
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        for (const auto& [batch, m, n, k] : std::vector<std::tuple<int64_t, int64_t, int64_t, int64_t>>{
                 {40, 256, 256, 256}, {22, 256, 256, 1024}, {22, 256, 1024, 256}}) {
            const at::Tensor a = at::randn({batch, m, k}).to(dtype), b = at::randn({batch, k, n}).to(dtype);
            at::Tensor c = at::zeros({batch, m, n}, dtype), e = at::zeros_like(c);
            const double flop = 2e-9 * static_cast<double>(batch * m * n * k);
            const double ours = seconds([&] { batched_gemm(a, b, c, 2, 0.5, e); });
            const double aten = seconds([&] { at::baddbmm_out(c, e, a, b, 0.5, 2); });
            std::printf("%s %3ld x %5ld %5ld %5ld        %10.0f %10.0f\n", name(dtype), batch, m, n, k,
                        flop / ours, flop / aten);
        }
    }
}

// The head in ATen element-wise passes over chunks of 256 tokens, as one would write it without kernels.
void aten_head(const at::Tensor& x, const at::Tensor& w, const at::Tensor& targets, const at::Tensor& dx,
               const at::Tensor& dw) {
    for (int64_t begin = 0; begin < x.size(0); begin += 256) {
        const at::Tensor xc = x.slice(0, begin, begin + 256), target = targets.slice(0, begin, begin + 256);
        const at::Tensor s = xc.mm(w.t()).to(at::kFloat).div_(7.5).sigmoid_();
        at::Tensor p = (30 * s).softmax(1);
        p.scatter_add_(1, target.unsqueeze(1), at::full({xc.size(0), 1}, -1.0F));
        const at::Tensor dz = p.mul_(s).mul_(1 - s).mul_(30 / 7.5).to(x.scalar_type());
        dx.slice(0, begin, begin + 256).copy_(dz.mm(w));
        at::Tensor out = dw;
        out.addmm_(dz.t(), xc);
    }
}

void bench_head() {
    std::printf("%-34s %10s %10s %10s  seconds (GFLOP/s)\n", "head_loss", "forward", "training", "ATen");
    for (const auto& [tokens, vocab, d] :
         std::vector<std::tuple<int64_t, int64_t, int64_t>>{{2048, 50304, 256},
                                                            {1024, 50304, 256},
                                                            {4096, 50304, 128},
                                                            {512, 50304, 768},
                                                            {4096, 4096, 256}}) {
        for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
            const at::Tensor x = at::randn({tokens, d}).to(dtype),
                             w = (0.1 * at::randn({vocab, d})).to(dtype);
            const at::Tensor targets = at::randint(vocab, {tokens}, at::kLong), loss = at::empty({tokens});
            const at::Tensor dx = at::empty_like(x), dw = at::zeros_like(w);
            const double forward = seconds([&] { head_loss(x, w, targets, {}, loss); });
            const double training =
                seconds([&] { head_loss_backward(x, w, targets, {}, 1, loss, dx, dw); }, 3.0);
            const double aten = seconds([&] { aten_head(x, w, targets, dx, dw); });
            const double flop = 6e-9 * static_cast<double>(tokens * vocab * d);
            std::printf("%s T %5ld V %6ld d %4ld          %10.3f %10.3f %10.3f  (%.0f, %.0f)\n", name(dtype),
                        tokens, vocab, d, forward, training, aten, flop / training, flop / aten);
        }
    }
}

}  // namespace

int main(int argc, char** argv) {
    std::set<std::string> wanted(argv + 1, argv + argc);
    count_cpu_time = wanted.erase("cpu") > 0;
    const auto asked = [&](const char* what) { return wanted.empty() || wanted.count(what) > 0; };
    std::printf("threads %d; fp32: %s; bf16: %s\n", at::get_num_threads(), gemm_backend(at::kFloat).c_str(),
                gemm_backend(at::kBFloat16).c_str());
    if (asked("gemm")) bench_gemm();
    if (asked("batched")) bench_batched();
    if (asked("head")) bench_head();
}
