// Times head_loss against the same in plain ATen: the minimum over the runs that fit in a second each. What
// every op takes without a comparison: `speedrun bench ops`.
//   head_bench [cpu]
// "cpu" counts processor time instead of wall time: with OMP_NUM_THREADS=1, figures of one core on a busy
// machine.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <string_view>
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
    count_cpu_time = argc > 1 && std::string_view(argv[1]) == "cpu";
    std::printf("threads %d; fp32: %s; bf16: %s\n", at::get_num_threads(), gemm_backend(at::kFloat).c_str(),
                gemm_backend(at::kBFloat16).c_str());
    bench_head();
}
