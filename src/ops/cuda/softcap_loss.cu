#include "ops/cuda/device.cuh"

namespace speedrun::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / kWarp;

// Every thread gets the same sum, formed in the same order.
__device__ __forceinline__ float block_sum(float x) {
    __shared__ float sums[kWarps];
    x = warp_sum(x);
    __syncthreads();  // of the sum before
    if (lane_index() == 0) sums[threadIdx.x / kWarp] = x;
    __syncthreads();
    return warp_sum(sums[lane_index()]);
}

struct Cap {
    float a, b, c;
    // As a share of its height: sigmoid((z + b) / c).
    __device__ float share(float z) const { return sigmoid((z + b) / c); }
};

// A block a row. A capped logit is at most |a| away from 0, so exp(capped - |a|) neither overflows nor, for
// |a| <= 40, vanishes: no pass for the largest one. What a thread has read it keeps (kHeld packs), so that a
// row is read once and written once.
template <class T, class G, int N, int kHeld>
__global__ void __launch_bounds__(kThreads)
    softcap_loss_kernel(RowsOf<const T> logits, const int64_t* targets, Cap cap, float* loss,
                        RowsOf<G> gradient, float grad_scale, Shape shape) {
    const int64_t t = blockIdx.x, first = static_cast<int64_t>(threadIdx.x) * N;
    const T* from = logits[t];
    const float height = fabsf(cap.a);
    Pack<T, N> held[kHeld];
    float sum = 0;
#pragma unroll
    for (int h = 0; h < kHeld; ++h) {
        const int64_t i = first + static_cast<int64_t>(h) * kThreads * N;
        if (i >= shape.cols) break;
        held[h] = load_pack<N>(from + i);
#pragma unroll
        for (int k = 0; k < N; ++k) sum += expf(cap.a * cap.share(load(held[h].at[k])) - height);
    }
    for (int64_t i = first + static_cast<int64_t>(kHeld) * kThreads * N; i < shape.cols; i += kThreads * N) {
        const Pack<T, N> pack = load_pack<N>(from + i);
#pragma unroll
        for (int k = 0; k < N; ++k) sum += expf(cap.a * cap.share(load(pack.at[k])) - height);
    }
    const int64_t target = targets[t];
    const float at_target =
        cap.a * cap.share(load(from[target]));  // before the sum's barrier: a gradient may be written over it
    sum = block_sum(sum);
    if (threadIdx.x == 0) loss[t] = logf(sum) + height - at_target;
    if (!gradient.data) return;
    const float slope = grad_scale * cap.a / cap.c, share_of_sum = 1 / sum;
    const auto write = [&](const Pack<T, N>& pack, int64_t i) {
        Pack<G, N> out;
#pragma unroll
        for (int k = 0; k < N; ++k) {
            const float s = cap.share(load(pack.at[k]));
            const float probability = expf(cap.a * s - height) * share_of_sum;
            store(out.at[k], slope * s * (1 - s) * (probability - (i + k == target ? 1.0F : 0.0F)));
        }
        store_pack(gradient[t] + i, out);
    };
#pragma unroll
    for (int h = 0; h < kHeld; ++h) {
        const int64_t i = first + static_cast<int64_t>(h) * kThreads * N;
        if (i >= shape.cols) break;
        write(held[h], i);
    }
    for (int64_t i = first + static_cast<int64_t>(kHeld) * kThreads * N; i < shape.cols; i += kThreads * N)
        write(load_pack<N>(from + i), i);
}

}  // namespace

void softcap_loss(const SoftcapLoss& loss, Shape shape, Stream stream) {
    const bool packed = packs(loss.logits, shape.cols) && packs(loss.gradient, shape.cols) &&
                        (!loss.gradient.data || loss.gradient.type == loss.logits.type);
    with_packs(loss.logits.type, packed, [&]<class T, int N>(T, std::integral_constant<int, N>) {
        const auto run = [&]<class G>(G) {
            constexpr int kHeld = N == 1 ? 1 : 7;  // 7 packs of 8 for each of 1,024 threads: 57,344 logits
            launch(softcap_loss_kernel<T, G, N, kHeld>, shape.rows, kThreads, stream,
                   rows_of<const T>(loss.logits), loss.targets, Cap{loss.a, loss.b, loss.c}, loss.loss,
                   rows_of<G>(loss.gradient), loss.grad_scale, shape);
        };
        if constexpr (N == 1)
            with_scalar(loss.gradient.type, run);
        else
            run(T{});
    });
}

}  // namespace speedrun::cuda
