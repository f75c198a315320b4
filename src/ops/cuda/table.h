#pragma once
#include "ops/cuda/kernels.h"

namespace speedrun::cuda {

// The kernels by name. The module libspeedrun_cuda.so has one, and the tests' emulation on a CPU another.
struct Kernels {
    decltype(&cuda::mix) mix;
    decltype(&cuda::mix_backward) mix_backward;
    decltype(&cuda::rms_norm) rms_norm;
    decltype(&cuda::rms_norm_backward) rms_norm_backward;
    decltype(&cuda::relu2) relu2;
    decltype(&cuda::relu2_backward) relu2_backward;
    decltype(&cuda::qk_norm_rotary) qk_norm_rotary;
    decltype(&cuda::qk_norm_rotary_backward) qk_norm_rotary_backward;
    decltype(&cuda::head_gate) head_gate;
    decltype(&cuda::head_gate_backward) head_gate_backward;
    decltype(&cuda::smear) smear;
    decltype(&cuda::smear_backward) smear_backward;
    decltype(&cuda::embedding) embedding;
    decltype(&cuda::embedding_backward) embedding_backward;
    decltype(&cuda::attention_layout) attention_layout;
    decltype(&cuda::softcap_loss) softcap_loss;
    decltype(&cuda::quantize) quantize;
    decltype(&cuda::transpose_bytes) transpose_bytes;
    decltype(&cuda::compute_capability) compute_capability;
    decltype(&cuda::gram) gram;
    decltype(&cuda::adam) adam;
    decltype(&cuda::momentum) momentum;
    decltype(&cuda::matrix_update) matrix_update;
};

}  // namespace speedrun::cuda

// What the module is loaded for; never null.
extern "C" const speedrun::cuda::Kernels* speedrun_cuda_kernels();
