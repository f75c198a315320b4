#include "plan/throughput.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <limits>
#include <numeric>

#include "ops/gemm.h"
#include "util/shape.h"

namespace speedrun {
namespace {

double least_seconds(int calls, const std::function<void()>& call) {
    double least = std::numeric_limits<double>::infinity();
    for (int i = 0; i < calls; ++i) {
        const auto start = std::chrono::steady_clock::now();
        call();
        least =
            std::min(least, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    return least;
}

}  // namespace

double measure_gemm_peak(at::ScalarType dtype, at::Device device) {
    const int64_t n = device.is_cpu() ? 1024 : 8192;  // a GPU starts kernels in the time it multiplies 1024
    const auto options = at::TensorOptions().dtype(dtype).device(device);
    const at::Tensor a = at::full({n, n}, 0.5, options), b = at::full({n, n}, 0.25, options);
    const at::Tensor c = at::empty({n, n}, options);
    return 2.0 * static_cast<double>(n * n * n) / least_seconds(8, [&] {
               ops::gemm(a, b, c);
               c[0][0].item();  // waits for the device
           });
}

double measure_copy_bandwidth(at::Device device) {
    const int64_t bytes = int64_t{1} << (device.is_cpu() ? 27 : 30);
    const at::Tensor from = at::ones({bytes}, at::device(device).dtype(at::kByte)), to = at::empty_like(from);
    return 2.0 * static_cast<double>(bytes) / least_seconds(6, [&] {
               to.copy_(from);
               to[0].item();
           });
}

}  // namespace speedrun
