// The module without cuDNN's attention: the build did not find cuDNN's header or its frontend.
#include "ops/cuda/attention_graphs.h"

extern "C" const speedrun::cuda::CudnnAttention* speedrun_cudnn_attention() {
    return nullptr;
}
