// CUDA's runtime for the idle GPU: kernels, by the names they are registered with. None is run.
#include <cuda_runtime_api.h>

#include <map>
#include <string>

#include "idle_gpu/device.h"

namespace speedrun::idle_gpu {
namespace {

struct Kernel {
    std::string name;
    size_t most_shared = size_t{48} << 10;  // cudaFuncSetAttribute
};
// By the address of the function that stands for it on the host.
std::map<const void*, Kernel>& kernels() {
    static auto* const all = new std::map<const void*, Kernel>;
    return *all;
}

cudaError_t start(const Kernel& kernel, dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
    if (shared > kernel.most_shared)
        return told(Device::get().refuse(kernel.name + ": more shared memory than its attribute allows",
                                         cudaErrorInvalidConfiguration));
    return told(launch_kernel(kernel.name, grid, block, shared, stream));
}

}  // namespace
}  // namespace speedrun::idle_gpu

using namespace speedrun::idle_gpu;

extern "C" {

void** __cudaRegisterFatBinary(void*) {
    static void* handle = nullptr;
    return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
void __cudaRegisterFunction(void**, const char* host, char*, const char* name, int, void*, void*, void*,
                            void*, int*) {
    const std::scoped_lock held(Device::get().lock);
    kernels()[host].name = name;
}
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* host) {
    const std::scoped_lock held(Device::get().lock);
    const auto found = kernels().find(host);
    if (found == kernels().end()) return told(cudaErrorInvalidDeviceFunction);
    *kernel = reinterpret_cast<cudaKernel_t>(&found->second);
    return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void**, size_t shared,
                               cudaStream_t stream) {
    return start(*reinterpret_cast<const Kernel*>(kernel), grid, block, shared, stream);
}
cudaError_t cudaLaunchKernel(const void* host, dim3 grid, dim3 block, void**, size_t shared,
                             cudaStream_t stream) {
    const auto found = kernels().find(host);
    if (found == kernels().end()) return told(cudaErrorInvalidDeviceFunction);
    return start(found->second, grid, block, shared, stream);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* host, void** arguments) {
    return cudaLaunchKernel(host, config->gridDim, config->blockDim, arguments, config->dynamicSmemBytes,
                            config->stream);
}
thread_local struct {
    dim3 grid, block;
    size_t shared;
    cudaStream_t stream;
} configuration;
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
    configuration = {grid, block, shared, stream};
    return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
    *grid = configuration.grid;
    *block = configuration.block;
    *shared = configuration.shared;
    *static_cast<cudaStream_t*>(stream) = configuration.stream;
    return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void* host, cudaFuncAttribute attribute, int value) {
    const std::scoped_lock held(Device::get().lock);
    const auto found = kernels().find(host);
    if (found == kernels().end()) return told(cudaErrorInvalidDeviceFunction);
    if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) {
        if (value > 227 << 10)
            return told(Device::get().refuse(found->second.name + ": an attribute of too much shared memory",
                                             cudaErrorInvalidValue));
        found->second.most_shared = static_cast<size_t>(value);
    }
    return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* found, const void*) {
    *found = {};
    found->maxThreadsPerBlock = 1024;
    found->numRegs = 64;
    found->binaryVersion = found->ptxVersion = 90;
    return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void*, int, size_t,
                                                                   unsigned) {
    *blocks = 2;
    return cudaSuccess;
}
}
