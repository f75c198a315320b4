#include "ops/cuda/device.cuh"

namespace speedrun::cuda {
namespace {

constexpr int kHiddenPerLane = static_cast<int>(kNetHidden) / kWarp;
constexpr int kOutputsPerLane = (kMostNetOutputs + kWarp - 1) / kWarp;

struct Gelu {
    float value, slope;
};
// x Phi(x), and its derivative Phi(x) + x phi(x).
__device__ __forceinline__ Gelu gelu_of(float x) {
    const float below = 0.5F * (1 + erff(x * 0.70710678118654752F));
    return {x * below, below + x * 0.39894228040143268F * expf(-0.5F * x * x)};
}

template <class T, class W>
struct TypedNet {
    const T* h;
    T* dh;
    const W *w, *b;
    const float* scale;
    int64_t outputs;

    __device__ float weight(int64_t output, int64_t k) const { return load(w[output * kNetHidden + k]); }
};

// One warp a token: lane l has the hidden numbers l, l + 32.
template <class T, class W>
__global__ void coef_net_kernel(TypedNet<T, W> net, float* values, int64_t tokens) {
    const int lane = lane_index();
    const float scale = *net.scale;
    for (int64_t t = warp_index(); t < tokens; t += warp_count()) {
        float gelu[kHiddenPerLane];
#pragma unroll
        for (int j = 0; j < kHiddenPerLane; ++j) {
            gelu[j] = gelu_of(load(net.h[t * kNetHidden + j * kWarp + lane])).value;
        }
        for (int64_t output = 0; output < net.outputs; ++output) {
            float sum = 0;
#pragma unroll
            for (int j = 0; j < kHiddenPerLane; ++j) sum += gelu[j] * net.weight(output, j * kWarp + lane);
            sum = warp_sum(sum);
            if (lane == 0) values[t * net.outputs + output] = (sum + load(net.b[output])) * scale;
        }
    }
}

// One warp a token. The sums for dw stay in registers, number output * kHiddenPerLane + j with the lane of
// hidden number j * 32 + lane; those for db with the lane output % 32. dscale: what each lane's hidden
// numbers add to it, and of lane 0 the biases too.
template <class T, class W>
__global__ void coef_net_backward_kernel(TypedNet<T, W> net, const float* dvalues, float* dw_partials,
                                         float* db_partials, float* dscale_partials, int64_t tokens) {
    const int lane = lane_index();
    const float scale = *net.scale;
    float dscale[1] = {};
    float dw[kMostNetOutputs * kHiddenPerLane] = {}, db[kOutputsPerLane] = {};
    for (int64_t t = warp_index(); t < tokens; t += warp_count()) {
        Gelu gelu[kHiddenPerLane];
        float dgelu[kHiddenPerLane] = {};
#pragma unroll
        for (int j = 0; j < kHiddenPerLane; ++j) {
            gelu[j] = gelu_of(load(net.h[t * kNetHidden + j * kWarp + lane]));
        }
#pragma unroll
        for (int output = 0; output < kMostNetOutputs; ++output) {
            if (output >= net.outputs) break;
            const float dvalue = dvalues[t * net.outputs + output], dz = dvalue * scale;
            if (lane == output % kWarp) db[output / kWarp] += dz;
            float z = lane == 0 ? load(net.b[output]) : 0;
#pragma unroll
            for (int j = 0; j < kHiddenPerLane; ++j) {
                const float w = net.weight(output, j * kWarp + lane);
                dgelu[j] += dz * w;
                z += w * gelu[j].value;
                dw[output * kHiddenPerLane + j] += dz * gelu[j].value;
            }
            dscale[0] += dvalue * z;
        }
#pragma unroll
        for (int j = 0; j < kHiddenPerLane; ++j) {
            store(net.dh[t * kNetHidden + j * kWarp + lane], dgelu[j] * gelu[j].slope);
        }
    }
    store_block_sums(dw, net.outputs * kNetHidden, dw_partials + blockIdx.x * net.outputs * kNetHidden);
    store_block_sums(db, net.outputs, db_partials + blockIdx.x * net.outputs);
    dscale[0] = warp_sum(dscale[0]);
    store_block_sums(dscale, 1, dscale_partials + blockIdx.x);
}

template <class T, class W>
TypedNet<T, W> typed(const CoefNet& net) {
    return {static_cast<const T*>(net.h.data),
            static_cast<T*>(net.dh.data),
            static_cast<const W*>(net.w.data),
            static_cast<const W*>(net.b.data),
            net.scale,
            net.outputs};
}

// Calls body(T{}, W{}).
template <class Body>
void with_types(const CoefNet& net, const Body& body) {
    if (net.outputs > kMostNetOutputs)
        throw std::runtime_error("coef_net: more outputs than the kernel holds");
    with_scalar(net.h.type, [&]<class T>(T zero) {
        with_scalar(net.w.type, [&]<class W>(W weight_zero) { body(zero, weight_zero); });
    });
}

void coef_net(const CoefNet& net, float* values, int64_t tokens, Stream stream) {
    with_types(net, [&]<class T, class W>(T, W) {
        launch(coef_net_kernel<T, W>, row_blocks(tokens), kWarpsPerBlock * kWarp, stream, typed<T, W>(net),
               values, tokens);
    });
}

void coef_net_backward(const CoefNet& net, const float* dvalues, float* partials, int64_t tokens,
                       Stream stream) {
    const int64_t blocks = partial_blocks(tokens), weights = net.outputs * kNetHidden;
    float *const db_partials = partials + blocks * weights, *const dscale_partials =
                                                                db_partials + blocks * net.outputs;
    with_types(net, [&]<class T, class W>(T, W) {
        launch(coef_net_backward_kernel<T, W>, blocks, kWarpsPerBlock * kWarp, stream, typed<T, W>(net),
               dvalues, partials, db_partials, dscale_partials, tokens);
    });
    add_partials(partials, blocks, weights, weights, net.dw, stream);
    add_partials(db_partials, blocks, net.outputs, net.outputs, net.db, stream);
    if (net.dscale.data) add_partials(dscale_partials, blocks, 1, 1, net.dscale, stream);
}

const Registration register_coef_net(&Kernels::coef_net, coef_net);
const Registration register_coef_net_backward(&Kernels::coef_net_backward, coef_net_backward);

}  // namespace
}  // namespace speedrun::cuda
