#include "ops/cuda/device.cuh"

namespace speedrun::cuda {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ int64_t thread_index() {
    return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

__device__ __forceinline__ float decayed(float p, float u, Adam::Decay kind, float decay, float keep) {
    if (kind == Adam::Decay::decoupled) return keep * p - u;
    const bool decays = kind == Adam::Decay::cautious ? u * p >= 0 : u * p > 0;
    return p - (u + (decays ? decay * p : 0));
}

// N neighbouring elements a thread; N = 1 where the count or an address does not allow more.
template <class P, class S, class C, int N>
__global__ void adam_kernel(P* value, P* grad, S* exp_avg, S* exp_avg_sq, C* copy, Adam numbers,
                            int64_t count) {
    const int64_t i = thread_index() * N;
    if (i >= count) return;
    Pack<P, N> p = load_pack<N>(value + i), g = load_pack<N>(grad + i);
    Pack<S, N> m = load_pack<N>(exp_avg + i), v = load_pack<N>(exp_avg_sq + i);
    Pack<C, N> c;
    const float eps = rounded(numbers.eps), step_size = rounded(numbers.step_size),
                decay = rounded(numbers.decay), keep = static_cast<float>(1 - now(numbers.decay));
#pragma unroll
    for (int k = 0; k < N; ++k) {
        const float gradient = load(g.at[k]);
        const float first = numbers.beta1 * load(m.at[k]) + (1 - numbers.beta1) * gradient;
        const float second = numbers.beta2 * load(v.at[k]) + (1 - numbers.beta2) * (gradient * gradient);
        store(m.at[k], first);
        store(v.at[k], second);
        const float u = step_size * (first / (sqrtf(second) + eps));
        store(p.at[k], decayed(load(p.at[k]), u, numbers.decay_kind, decay, keep));
        store(c.at[k], load(p.at[k]));
        store(g.at[k], 0);
    }
    store_pack(value + i, p);
    store_pack(grad + i, g);
    store_pack(exp_avg + i, m);
    store_pack(exp_avg_sq + i, v);
    if (copy) store_pack(copy + i, c);
}

template <class T, class M, class U, int N>
__global__ void momentum_kernel(T* grad, M* momentum, U* update, Number number, bool lerp, bool nesterov,
                                int64_t count) {
    const int64_t i = thread_index() * N;
    if (i >= count) return;
    const float mu = rounded(number), rest = static_cast<float>(1 - now(number));
    Pack<T, N> g = load_pack<N>(grad + i);
    Pack<M, N> m = load_pack<N>(momentum + i);
    Pack<U, N> u;
#pragma unroll
    for (int k = 0; k < N; ++k) {
        const float gradient = load(g.at[k]), before = load(m.at[k]);
        store(m.at[k], lerp ? before + rest * (gradient - before) : mu * before + gradient);
        Pack<M, 1> rounded;  // the reference's lerp has the momentum's dtype
        const float after = load(m.at[k]);
        const float ahead = lerp ? gradient + mu * (after - gradient) : gradient + mu * after;
        store(rounded.at[0], nesterov ? ahead : after);
        store(u.at[k], load(rounded.at[0]));
        store(g.at[k], 0);
    }
    store_pack(grad + i, g);
    store_pack(momentum + i, m);
    store_pack(update + i, u);
}

void adam(const Adam& adam, int64_t count, Stream stream) {
    const bool four = fours(count, {adam.value, adam.grad, adam.exp_avg, adam.exp_avg_sq, adam.copy});
    const int64_t blocks = blocks_for(count, kThreads * (four ? 4 : 1));
    with_scalar(adam.value.type, [&]<class P>(P) {
        with_scalar(adam.exp_avg.type, [&]<class S>(S) {
            with_scalar(adam.copy.type, [&]<class C>(C) {
                launch(four ? adam_kernel<P, S, C, 4> : adam_kernel<P, S, C, 1>, blocks, kThreads, stream,
                       static_cast<P*>(adam.value.data), static_cast<P*>(adam.grad.data),
                       static_cast<S*>(adam.exp_avg.data), static_cast<S*>(adam.exp_avg_sq.data),
                       static_cast<C*>(adam.copy.data), adam, count);
            });
        });
    });
}

void momentum(Flat grad, Flat momentum, Flat update, Number mu, bool lerp, bool nesterov, int64_t count,
              Stream stream) {
    const bool four = fours(count, {grad, momentum, update});
    const int64_t blocks = blocks_for(count, kThreads * (four ? 4 : 1));
    with_scalar(grad.type, [&]<class T>(T) {
        with_scalar(momentum.type, [&]<class M>(M) {
            with_scalar(update.type, [&]<class U>(U) {
                launch(four ? momentum_kernel<T, M, U, 4> : momentum_kernel<T, M, U, 1>, blocks, kThreads,
                       stream, static_cast<T*>(grad.data), static_cast<M*>(momentum.data),
                       static_cast<U*>(update.data), mu, lerp, nesterov, count);
            });
        });
    });
}

const Registration register_adam(&Kernels::adam, adam);
const Registration register_momentum(&Kernels::momentum, momentum);

}  // namespace
}  // namespace speedrun::cuda
