#include "train/throughput.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <numeric>

#include "ops/gemm.h"

namespace speedrun {

double gemm_flop_per_token(const ModelConfig& model) {
    const auto elements = [&](const std::string& name) {
        const auto& shape = model.param(name).shape;
        return std::accumulate(shape.begin(), shape.end(), 1.0, std::multiplies<>());
    };
    double multiplied = elements(model.output.head);
    for (const LayerConfig& layer : model.layers) {
        if (layer.skip_layer) continue;
        const auto entry = [&](const std::string& name) {
            return elements(name) / static_cast<double>(model.param(name).shape.front());
        };
        if (layer.attn) multiplied += entry(layer.attn->param);
        if (layer.mlp) multiplied += entry(layer.mlp->fc) + entry(layer.mlp->proj);
    }
    return 6 * multiplied;
}

double measure_gemm_peak(at::ScalarType dtype, at::Device device) {
    const int64_t n = device.is_cpu() ? 1024 : 8192;  // a GPU starts kernels in the time it multiplies 1024
    const auto options = at::TensorOptions().dtype(dtype).device(device);
    const at::Tensor a = at::full({n, n}, 0.5, options), b = at::full({n, n}, 0.25, options);
    const at::Tensor c = at::empty({n, n}, options);
    double best = 0;
    for (int i = 0; i < 8; ++i) {
        const auto start = std::chrono::steady_clock::now();
        ops::gemm(a, b, c);
        c[0][0].item();  // waits for the device
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
        best = std::max(best, 2.0 * static_cast<double>(n * n * n) / seconds.count());
    }
    return best;
}

}  // namespace speedrun
