#include "ops/cuda/device.cuh"

namespace speedrun::cuda {
namespace {

// A warp for each sum.
template <class T>
__global__ void add_partials_kernel(const float* partials, int64_t sets, int64_t stride, int64_t width,
                                    T* to) {
    const int64_t i = warp_index();
    if (i >= width) return;
    float sum = 0;
    for (int64_t k = lane_index(); k < sets; k += kWarp) sum += partials[k * stride + i];
    sum = warp_sum(sum);
    if (lane_index() == 0) store(to[i], load(to[i]) + sum);
}

}  // namespace

void add_partials(const float* partials, int64_t sets, int64_t stride, int64_t width, Flat to,
                  Stream stream) {
    with_scalar(to.type, [&]<class T>(T) {
        launch(add_partials_kernel<T>, row_blocks(width), kWarpsPerBlock * kWarp, stream, partials, sets,
               stride, width, static_cast<T*>(to.data));
    });
}

}  // namespace speedrun::cuda
