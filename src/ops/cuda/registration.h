#pragma once
#include "ops/cuda/kernels.h"

namespace speedrun::cuda {

// The table that speedrun_cuda_kernels() hands out.
Kernels& kernel_table();

// Puts a kernel into the table when the program or module that holds it is loaded.
template <class Function>
struct Registration {
    Registration(Function Kernels::*member, Function function) { kernel_table().*member = function; }
};

}  // namespace speedrun::cuda
