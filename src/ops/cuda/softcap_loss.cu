#include <cmath>

#include "ops/cuda/fp8.cuh"

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

// A soft cap: a capped logit is height times its share, from 0 to 1, but for what all logits have in common.
// In powers of two, which are one instruction each: special functions, 16 a cycle, are what this kernel waits
// for.
struct Cap {
    float slope, shift;        // SigmoidCap: of a logit, -log2(e) / c, -b log2(e) / c; RsqrtCap: 1 / a, 0
    float height, abs_height;  // height log2(e), |height| log2(e)

    // exp(height (share - 1)) of share * scale, or for a negative height exp(height share)
    __device__ float exponential(float share, float scale = 1) const {
        return exp2_fast(height * scale * share - abs_height);
    }
};

struct SigmoidCap : Cap {
    // sigmoid((z + b) / c)
    __device__ float share(float z) const { return reciprocal(1 + exp2_fast(slope * z + shift)); }
    // The share's derivative by z, but for a factor, made of s (1 - s).
    __device__ static float bend(float product) { return product; }
};

struct RsqrtCap : Cap {
    // (1 + z / sqrt(z^2 + a^2)) / 2
    __device__ float share(float z) const {
        const float u = fminf(fmaxf(slope * z, -0x1p60F), 0x1p60F);  // whose square is finite
        return z != z ? z : 0.5F + 0.5F * u * rsqrtf(1 + u * u);
    }
    __device__ static float bend(float product) { return 8 * product * sqrtf(product); }
};

constexpr float kSteps = 65535, kWhole = 8388608;  // of 16 bits; 2^23

// What is kept of N logits between the sum and the gradient: their shares, in units of unit().
template <class T, int N>
struct alignas(4 * N) Kept {
    __device__ static float unit() { return 1; }
    float shares[N];
    __device__ void keep(const float (&given)[N]) {
#pragma unroll
        for (int k = 0; k < N; ++k) shares[k] = given[k];
    }
    __device__ float share(int k) const {
        return shares[k];
    }
};
// Those of bf16 logits in 16 bits each: with a cap of 30 that is off by 1/4000 of a probability at most, an
// eighth of what its rounding to bf16 is. A number added to 2^23 has its nearest integer in its last bits.
template <int N>
struct alignas(2 * N) Kept<__nv_bfloat16, N> {
    static_assert(N % 2 == 0);
    __device__ static float unit() { return 1 / kSteps; }
    uint32_t pairs[N / 2];
    __device__ void keep(const float (&given)[N]) {
#pragma unroll
        for (int k = 0; k < N; k += 2)
            pairs[k / 2] = (bits_of(given[k] * kSteps + kWhole) & 0xffffU) |
                           (bits_of(given[k + 1] * kSteps + kWhole) << 16);
    }
    __device__ float share(int k) const {
        const uint32_t pair = pairs[k / 2];
        return float_of((k % 2 == 0 ? pair & 0xffffU : pair >> 16) | 0x4b000000U) - kWhole;
    }
};

template <class T, int N>
using KeptOf = Kept<std::conditional_t<N == 1, float, T>, N>;

// Gradients as they are stored; in 8 bits after they were rounded to bf16, times `inverse_scale`.
template <class G, int N>
__device__ __forceinline__ Pack<G, N> stored(const float (&gradients)[N], float inverse_scale) {
    if constexpr (std::is_same_v<G, uint8_t>) {
        float scaled[N];
#pragma unroll
        for (int k = 0; k < N; ++k) {
            __nv_bfloat16 rounded;
            store(rounded, gradients[k]);
            scaled[k] = load(rounded) * inverse_scale;
        }
        return to_fp8(scaled, __NV_E5M2);
    } else {
        Pack<G, N> pack;
#pragma unroll
        for (int k = 0; k < N; ++k) store(pack.at[k], gradients[k]);
        return pack;
    }
}

// The targets of a row; several may be the same token.
struct TokenTargets {
    int count;
    int64_t tokens[kMostTargets + 1];  // the prefix comes last
    float weights[kMostTargets + 1], shares[kMostTargets + 1];
    float normaliser;  // what the softmax of the gradient is multiplied by

    template <class T, class SomeCap>
    __device__ void read(const SoftcapLoss& loss, const T* logits, const SomeCap& cap, int64_t t) {
        const int64_t left = loss.targets_left - t;
        count = left < loss.weight_count ? static_cast<int>(left) : loss.weight_count;
        normaliser = 0;
        for (int k = 0; k < loss.weight_count; ++k) {
            const float weight = loss.weights ? loss.weights[k] : 1;
            if (k < count || loss.keep_normaliser) normaliser += weight;
            if (k >= count) continue;
            weights[k] = weight;
            tokens[k] = loss.targets[t + k];
            shares[k] = cap.share(load(logits[tokens[k]]));
        }
        const int64_t prefix = loss.prefix_of ? loss.prefix_of[loss.targets[t]] : -1;
        if (prefix < 0) return;
        weights[count] = *loss.prefix_weight;
        tokens[count] = prefix;
        shares[count] = cap.share(load(logits[prefix]));
        normaliser += weights[count++];
    }
    // Of all targets that are the k-th one's token, or -1 where one before it is.
    __device__ float whole_weight(int k) const {
        float whole = 0;
        for (int j = 0; j < count; ++j) {
            if (tokens[j] != tokens[k]) continue;
            if (j < k) return -1;
            whole += weights[j];
        }
        return whole;
    }
};

constexpr int kOwnShared = kWarps * sizeof(float) + sizeof(TokenTargets);  // and block_sum's

// A block a row. A capped logit is within |height| of 0, so exp(capped - |height|) neither overflows nor, for
// |height| <= 40, vanishes: no pass for the largest one. The first `held` logits are kept in shared memory,
// so that they are read once and written once, and two blocks take turns on a multiprocessor; those beyond
// are read twice.
template <class T, class G, int N, class SomeCap>
__global__ void __launch_bounds__(kThreads, 2)
    softcap_loss_kernel(RowsOf<const T> logits, SoftcapLoss problem, SomeCap cap, RowsOf<G> gradient,
                        float slope, float inverse_scale, Shape shape, int held) {
    constexpr int stride = kThreads * N;
    const int64_t t = blockIdx.x;
    const int first = static_cast<int>(threadIdx.x) * N, cols = static_cast<int>(shape.cols);
    const T* from = logits[t];
    auto* const kept = reinterpret_cast<KeptOf<T, N>*>(dynamic_shared);
    float sum = 0;
    const auto shares_at = [&](int i, float(&shares)[N]) {
        const Pack<T, N> pack = load_pack<N>(from + i);
#pragma unroll
        for (int k = 0; k < N; ++k) shares[k] = cap.share(load(pack.at[k]));
    };
    float shares[N];
#pragma unroll 1
    for (int i = first; i < cols; i += stride) {
        shares_at(i, shares);
#pragma unroll
        for (int k = 0; k < N; ++k) sum += cap.exponential(shares[k]);
        if (i < held) kept[i / N].keep(shares);
    }
    __shared__ TokenTargets targets;
    if (threadIdx.x == 0) targets.read(problem, from, cap, t);  // gradients may be written over them
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        const float log_sum = logf(sum) + fabsf(problem.height);
        float loss = 0;
        for (int k = 0; k < targets.count; ++k)
            loss += targets.weights[k] * (log_sum - problem.height * targets.shares[k]);
        problem.loss[t] = loss;
    }
    if (!gradient.data) return;

    // slope bend(s) p, of all as if none were a target.
    slope *= targets.normaliser;
    const float over_sum = slope / sum;
    const auto write = [&](int i, float unit, const auto& share) {
        const float squared = unit * unit, one = 1 / unit;
        float gradients[N];
#pragma unroll
        for (int k = 0; k < N; ++k) {
            const float s = share(k);
            gradients[k] = over_sum * cap.bend(squared * (s * (one - s))) * cap.exponential(s, unit);
        }
        store_pack(gradient[t] + i, stored<G>(gradients, inverse_scale));
    };
#pragma unroll 1
    for (int i = first; i < cols; i += stride) {
        if (i < held) {
            const KeptOf<T, N> own = kept[i / N];
            write(i, own.unit(), [&](int k) { return own.share(k); });
        } else {
            shares_at(i, shares);
            write(i, 1, [&](int k) { return shares[k]; });
        }
    }
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int k = 0; k < targets.count; ++k) {
        const float weight = targets.whole_weight(k), s = targets.shares[k];
        if (weight < 0) continue;
        const float one[1] = {slope * cap.bend(s * (1 - s)) *
                              (cap.exponential(s) / sum - weight / targets.normaliser)};
        store_pack(gradient[t] + targets.tokens[k], stored<G>(one, inverse_scale));
    }
}

// How many of a row's logits the shared memory of a block can keep.
template <class T, int N>
int logits_held(int64_t cols) {
    const int bytes = device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin) - kOwnShared;
    const int64_t packs = bytes / static_cast<int64_t>(sizeof(KeptOf<T, N>));
    return static_cast<int>(std::min(packs * N, cols));
}

template <class SomeCap>
void launch_softcap_loss(const SoftcapLoss& loss, const SomeCap& cap, Shape shape, Stream stream) {
    const bool packed = packs(loss.logits, shape.cols) && packs(loss.gradient, shape.cols) &&
                        (!loss.gradient.data || loss.gradient.type == loss.logits.type);
    with_packs(loss.logits.type, packed, [&]<class T, int N>(T, std::integral_constant<int, N>) {
        const auto run = [&]<class G>(RowsOf<G> gradient) {
            const int held = gradient.data ? logits_held<T, N>(shape.cols) : 0;
            const int shared_bytes = held / N * static_cast<int>(sizeof(KeptOf<T, N>));
            launch_with_shared(softcap_loss_kernel<T, G, N, SomeCap>, shape.rows, kThreads, shared_bytes,
                               stream, rows_of<const T>(loss.logits), loss, cap, gradient,
                               loss.grad_scale * loss.slope, 1 / loss.fp8_scale, shape, held);
        };
        if (loss.gradient_fp8)
            run(RowsOf<uint8_t>{loss.gradient_fp8, shape.cols});
        else if constexpr (N == 1)
            with_scalar(loss.gradient.type, [&]<class G>(G) { run(rows_of<G>(loss.gradient)); });
        else
            run(rows_of<T>(loss.gradient));
    });
}

void softcap_loss(const SoftcapLoss& loss, Shape shape, Stream stream) {
    constexpr float log2_e = 1.44269504F;
    const float height = loss.height * log2_e;
    if (loss.rsqrt)
        launch_softcap_loss(loss, RsqrtCap{{1 / loss.a, 0, height, std::fabs(height)}}, shape, stream);
    else
        launch_softcap_loss(
            loss, SigmoidCap{{-log2_e / loss.c, -loss.b * log2_e / loss.c, height, std::fabs(height)}}, shape,
            stream);
}

const Registration register_softcap_loss(&Kernels::softcap_loss, softcap_loss);

}  // namespace
}  // namespace speedrun::cuda
