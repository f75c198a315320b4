// CUDA's runtime for the idle GPU: errors, devices (of an H100's properties) and the driver.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "idle_gpu/device.h"

namespace speedrun::idle_gpu {
namespace {
thread_local cudaError_t last_error = cudaSuccess;
}

cudaError_t told(cudaError_t error) {
    if (error != cudaSuccess) last_error = error;
    return error;
}

namespace {

thread_local int current = 0;

int device_count() {
    const char* const wanted = std::getenv("IDLE_GPUS");
    return wanted == nullptr ? 1 : std::atoi(wanted);
}

cudaDeviceProp properties() {
    cudaDeviceProp p{};
    std::snprintf(p.name, sizeof p.name, "idle GPU");
    p.totalGlobalMem = kTotalMemory;
    p.sharedMemPerBlock = size_t{48} << 10;
    p.sharedMemPerBlockOptin = size_t{227} << 10;
    p.sharedMemPerMultiprocessor = size_t{228} << 10;
    p.reservedSharedMemPerBlock = 1024;
    p.regsPerBlock = p.regsPerMultiprocessor = 65536;
    p.warpSize = 32;
    p.maxThreadsPerBlock = 1024;
    p.maxThreadsDim[0] = p.maxThreadsDim[1] = 1024;
    p.maxThreadsDim[2] = 64;
    p.maxGridSize[0] = 2147483647;
    p.maxGridSize[1] = p.maxGridSize[2] = 65535;
    p.major = 9;
    p.multiProcessorCount = 132;
    p.maxThreadsPerMultiProcessor = 2048;
    p.maxBlocksPerMultiProcessor = 32;
    p.l2CacheSize = 50 << 20;
    p.memoryBusWidth = 5120;
    p.concurrentKernels = p.unifiedAddressing = p.canMapHostMemory = p.streamPrioritiesSupported = 1;
    p.asyncEngineCount = 3;
    p.textureAlignment = 512;
    p.cooperativeLaunch = p.clusterLaunch = 1;
    return p;
}

}  // namespace
}  // namespace speedrun::idle_gpu

using namespace speedrun::idle_gpu;

extern "C" {

cudaError_t cudaGetLastError() {
    return std::exchange(last_error, cudaSuccess);
}
cudaError_t cudaPeekAtLastError() {
    return last_error;
}
const char* cudaGetErrorName(cudaError_t) {
    return "an error of the idle GPU";
}
const char* cudaGetErrorString(cudaError_t error) {
    thread_local std::string text;
    text = error == cudaSuccess ? "no error" : "idle GPU: error " + std::to_string(error);
    return text.c_str();
}

cudaError_t cudaGetDeviceCount(int* count) {
    *count = device_count();
    return *count > 0 ? cudaSuccess : told(cudaErrorNoDevice);
}
cudaError_t cudaGetDevice(int* device) {
    *device = current;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
    if (device < 0 || device >= device_count()) return told(cudaErrorInvalidDevice);
    current = device;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* found, int) {
    *found = properties();
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    const cudaDeviceProp p = properties();
    static const std::map<int, int> known{
        {cudaDevAttrMultiProcessorCount, p.multiProcessorCount},
        {cudaDevAttrComputeCapabilityMajor, p.major},
        {cudaDevAttrComputeCapabilityMinor, p.minor},
        {cudaDevAttrMaxSharedMemoryPerBlockOptin, static_cast<int>(p.sharedMemPerBlockOptin)},
        {cudaDevAttrMaxSharedMemoryPerBlock, static_cast<int>(p.sharedMemPerBlock)},
        {cudaDevAttrMaxSharedMemoryPerMultiprocessor, static_cast<int>(p.sharedMemPerMultiprocessor)},
        {cudaDevAttrMaxThreadsPerMultiProcessor, p.maxThreadsPerMultiProcessor},
        {cudaDevAttrWarpSize, p.warpSize},
        {cudaDevAttrL2CacheSize, p.l2CacheSize},
        {cudaDevAttrMaxGridDimX, p.maxGridSize[0]},
    };
    const auto found = known.find(attribute);
    if (found == known.end()) {
        std::fprintf(stderr, "idle GPU: attribute %d is not known\n", static_cast<int>(attribute));
        std::abort();
    }
    *value = found->second;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char* text, int length, int device) {
    std::snprintf(text, static_cast<size_t>(length), "0000:%02x:00.0", device + 1);
    return cudaSuccess;
}
cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) {
    *can = 0;
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
    *version = 13000;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
    *version = 13000;
    return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
    return told(Device::get().wait("cudaDeviceSynchronize", nullptr));
}

int cuDevicePrimaryCtxGetState(int, unsigned* flags, int* active) {
    *flags = 0;
    *active = 1;
    return 0;
}
int cuCtxGetCurrent(void** context) {
    static char primary;
    *context = &primary;
    return 0;
}
cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* found) {
    static const auto unsupported = [] { return 801; };
    const bool state = std::strcmp(name, "cuDevicePrimaryCtxGetState") == 0;
    *function =
        state ? reinterpret_cast<void*>(&cuDevicePrimaryCtxGetState) : reinterpret_cast<void*>(+unsupported);
    if (found != nullptr) *found = cudaDriverEntryPointSuccess;
    return cudaSuccess;
}
}
