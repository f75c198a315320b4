#pragma once
#include <cuda_runtime_api.h>

#include <functional>

// A kernel of another library's, which does `work`.
extern "C" cudaError_t idle_gpu_enqueue(cudaStream_t stream, const char* name,
                                        const std::function<void()>& work);
