#include "ops/cuda/registration.h"

namespace speedrun::cuda {

Kernels& kernel_table() {
    static Kernels kernels{};
    return kernels;
}

}  // namespace speedrun::cuda

extern "C" const speedrun::cuda::Kernels* speedrun_cuda_kernels() {
    return &speedrun::cuda::kernel_table();
}
