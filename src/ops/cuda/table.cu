#include "ops/cuda/table.h"

extern "C" const speedrun::cuda::Kernels* speedrun_cuda_kernels() {
    using namespace speedrun::cuda;
    static const Kernels kernels = {
        .mix = &mix,
        .mix_backward = &mix_backward,
        .rms_norm = &rms_norm,
        .rms_norm_backward = &rms_norm_backward,
        .relu2 = &relu2,
        .relu2_backward = &relu2_backward,
        .qk_norm_rotary = &qk_norm_rotary,
        .qk_norm_rotary_backward = &qk_norm_rotary_backward,
        .head_gate = &head_gate,
        .head_gate_backward = &head_gate_backward,
        .smear = &smear,
        .smear_backward = &smear_backward,
        .embedding = &embedding,
        .embedding_backward = &embedding_backward,
        .attention_layout = &attention_layout,
        .softcap_loss = &softcap_loss,
        .quantize = &quantize,
        .transpose_bytes = &transpose_bytes,
        .compute_capability = &compute_capability,
        .gram = &gram,
        .adam = &adam,
        .momentum = &momentum,
        .matrix_update = &matrix_update,
    };
    return &kernels;
}
