#pragma once
// The implementations of an op that a test goes through: the CPU's, the reference, the GPU's kernels emulated
// on the CPU (tests/cuda_emulation), and, where there is a GPU, the same kernels on it. All take CPU tensors.
#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "ops/coef_net.h"
#include "ops/cuda/gpu.h"
#include "ops/dynamic_composition.h"
#include "ops/head_loss.h"
#include "ops/mix.h"
#include "ops/rotary.h"

namespace speedrun::ops::testing {

// CPU tensors as tensors of another device, with their strides; those that share memory share it there too.
// back() copies all of it to where it came from.
class DeviceCopies {
  public:
    explicit DeviceCopies(at::Device device) : device_(device) {}

    at::Tensor operator()(const at::Tensor& x) {
        if (!x.defined()) return x;
        Pair& pair = pairs_[x.storage().data()];
        if (!pair.there.defined()) {
            pair.here =
                at::empty({0}, x.options())
                    .set_(x.storage(), 0, {static_cast<int64_t>(x.storage().nbytes() / x.itemsize())}, {1});
            pair.there = pair.here.to(device_, x.scalar_type(), /*non_blocking=*/false, /*copy=*/true);
        }
        return pair.there.as_strided(x.sizes(), x.strides(), x.storage_offset());
    }
    MixSource operator()(const MixSource& source) {
        return {(*this)(source.x), (*this)(source.factor), source.offset};
    }
    MixSourceGrad operator()(const MixSourceGrad& grad) {
        return {(*this)(grad.source), (*this)(grad.dx), grad.accumulate, (*this)(grad.dfactor),
                grad.wants_coefficient};
    }
    RotaryTables operator()(const RotaryTables& tables) {
        return {(*this)(tables.cos), (*this)(tables.sin), tables.layout, tables.paired};
    }
    CoefNetWeights operator()(const CoefNetWeights& net) {
        return {(*this)(net.w), (*this)(net.b), (*this)(net.scale)};
    }
    Composition operator()(const Composition& in) {
        return {(*this)(in.q),  (*this)(in.k),          (*this)(in.v), (*this)(in.w1),
                (*this)(in.w2), (*this)(in.cu_seqlens), in.window,     in.scale};
    }
    CompositionGrads operator()(const CompositionGrads& grads) {
        return {(*this)(grads.dq), (*this)(grads.dk),  (*this)(grads.dv),
                grads.accumulate,  (*this)(grads.dw1), (*this)(grads.dw2)};
    }
    Targets operator()(const Targets& targets) {
        return {(*this)(targets.next), (*this)(targets.weights), targets.tail, (*this)(targets.prefix_of),
                (*this)(targets.prefix_weight)};
    }
    template <class T>
    std::vector<T> operator()(std::span<const T> all) {
        std::vector<T> copies;
        for (const T& one : all) copies.push_back((*this)(one));
        return copies;
    }
    template <class Number>
    Number operator()(Number number) {
        return number;
    }
    void back() const {
        for (const auto& [storage, pair] : pairs_) pair.here.copy_(pair.there);
    }

  private:
    struct Pair {
        at::Tensor here, there;
    };
    at::Device device_;
    std::map<const void*, Pair> pairs_;
};

inline bool is_fp64(const at::Tensor& x) {
    return x.defined() && x.scalar_type() == at::kDouble;
}
inline bool is_fp64(const MixSource& source) {
    return is_fp64(source.x) || is_fp64(source.factor);
}
inline bool is_fp64(const MixSourceGrad& grad) {
    return is_fp64(grad.source) || is_fp64(grad.dx);
}
inline bool is_fp64(const Composition& in) {
    return is_fp64(in.q);
}
template <class Number>
bool is_fp64(const Number&) {
    return false;
}
template <class T>
bool is_fp64(std::span<const T> all) {
    return std::ranges::any_of(all, [](const T& one) { return is_fp64(one); });
}

// The kernels compiled for the CPU.
inline cuda::Gpu emulated_gpu() {
    return {*speedrun_cuda_kernels(), nullptr};
}
inline cuda::Gpu real_gpu() {
    return cuda::gpu_of(at::empty({0}, at::kCUDA));
}

// A kernel of the GPU as an op on CPU tensors; fp64, which kernels do not take, goes to the reference.
template <auto kernel, auto reference>
struct Kernel;

template <class... A, void (*kernel)(const cuda::Gpu&, A...), auto reference>
struct Kernel<kernel, reference> {
    static void emulated(A... arguments) {
        if ((is_fp64(arguments) || ...)) return reference(arguments...);
        kernel(emulated_gpu(), arguments...);
    }
    static void on_gpu(A... arguments) {
        if ((is_fp64(arguments) || ...)) return reference(arguments...);
        DeviceCopies copies(at::kCUDA);
        kernel(real_gpu(), copies(arguments)...);
        copies.back();
    }
};

// Whether this machine has a GPU and this build its kernels; loads them.
bool have_gpu();

template <class F>
struct Implementation;

template <class... A>
struct Implementation<void (*)(A...)> {
    std::string name;
    void (*call)(A...);
    void operator()(A... arguments) const { call(arguments...); }
};

template <auto op, auto reference, auto kernel>
std::vector<Implementation<decltype(op)>> implementations() {
    using K = Kernel<kernel, reference>;
    std::vector<Implementation<decltype(op)>> all = {
        {"op", op}, {"reference", reference}, {"emulated kernel", &K::emulated}};
    if (have_gpu()) all.push_back({"kernel on the GPU", &K::on_gpu});
    return all;
}

}  // namespace speedrun::ops::testing
