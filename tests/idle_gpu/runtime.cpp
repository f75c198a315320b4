// The functions of CUDA's runtime that LibTorch and this program call, for the idle GPU: one of an H100's
// properties, whose memory is the host's, and holds zeros where nothing was copied to from the host.
#include <cuda_runtime_api.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "idle_gpu/device.h"

namespace speedrun::idle_gpu {
namespace {

thread_local cudaError_t last_error = cudaSuccess;
thread_local int current = 0;

cudaError_t told(cudaError_t error) {
    if (error != cudaSuccess) last_error = error;
    return error;
}

int device_count() {
    const char* const wanted = std::getenv("IDLE_GPUS");
    return wanted == nullptr ? 1 : std::atoi(wanted);
}

constexpr size_t kTotalMemory = size_t{80} << 30;

// Memory of one kind: where it begins, and its bytes.
class Memory {
  public:
    void* take(size_t bytes) {
        void* const memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) return nullptr;
        blocks_[memory] = bytes;
        taken_ += bytes;
        return memory;
    }
    bool give_back(void* memory) {
        const auto found = blocks_.find(memory);
        if (found == blocks_.end()) return false;
        ::munmap(memory, found->second);
        taken_ -= found->second;
        blocks_.erase(found);
        return true;
    }
    bool holds(const void* address) const {
        auto after = blocks_.upper_bound(const_cast<void*>(address));
        if (after == blocks_.begin()) return false;
        --after;
        return static_cast<const char*>(address) < static_cast<const char*>(after->first) + after->second;
    }
    size_t taken() const { return taken_; }

  private:
    std::map<void*, size_t> blocks_;
    size_t taken_ = 0;
};

struct Memories {
    Memory device, pinned;
};
Memories& memories() {
    static auto* const both = new Memories;
    return *both;
}

struct Kernel {
    std::string name;
    size_t most_shared = size_t{48} << 10;  // cudaFuncSetAttribute
};
// By the address of the function that stands for it on the host.
std::map<const void*, Kernel>& kernels() {
    static auto* const all = new std::map<const void*, Kernel>;
    return *all;
}

Event& of(cudaEvent_t event) {
    return *reinterpret_cast<Event*>(event);
}

cudaError_t start(const Kernel& kernel, dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
    if (shared > kernel.most_shared)
        return told(Device::get().refuse(kernel.name + ": more shared memory than its attribute allows",
                                         cudaErrorInvalidConfiguration));
    return told(launch_kernel(kernel.name, grid, block, shared, stream));
}

std::string place(const void* address) {
    return memories().device.holds(address)   ? "device"
           : memories().pinned.holds(address) ? "host"
                                              : "pageable";
}

cudaError_t copy(void* to, const void* from, size_t bytes, cudaStream_t stream) {
    Device& device = Device::get();
    const std::scoped_lock held(device.lock);
    const std::string way = place(from) + " to " + place(to);
    if (!device.stream_of(stream).capture)
        ++device.counts.copies[way];
    else if (way.find("pageable") != std::string::npos)
        return device.refuse("a copy of pageable memory in a recording", cudaErrorStreamCaptureUnsupported,
                             &device.stream_of(stream));
    const bool stays = way == "device to device";
    return device.enqueue(stream, cudaGraphNodeTypeMemcpy, "a copy", [=] {
        if (!stays) std::memmove(to, from, bytes);
    });
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

// --- errors

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

// --- devices

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

// --- memory

cudaError_t cudaMalloc(void** memory, size_t bytes) {
    Device& device = Device::get();
    const std::scoped_lock held(device.lock);
    if (const cudaError_t error = device.check_allowed("cudaMalloc"); error != cudaSuccess)
        return told(error);
    ++device.counts.device_allocations;
    if (memories().device.taken() + bytes > kTotalMemory) return told(cudaErrorMemoryAllocation);
    *memory = memories().device.take(std::max<size_t>(bytes, 1));
    return *memory == nullptr ? told(cudaErrorMemoryAllocation) : cudaSuccess;
}
cudaError_t cudaFree(void* memory) {
    Device& device = Device::get();
    const std::scoped_lock held(device.lock);
    if (memory == nullptr) return cudaSuccess;
    if (const cudaError_t error = device.wait("cudaFree", nullptr); error != cudaSuccess) return told(error);
    return memories().device.give_back(memory) ? cudaSuccess : told(cudaErrorInvalidValue);
}
cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned) {
    Device& device = Device::get();
    const std::scoped_lock held(device.lock);
    if (const cudaError_t error = device.check_allowed("cudaHostAlloc"); error != cudaSuccess)
        return told(error);
    ++device.counts.host_allocations;
    *memory = memories().pinned.take(std::max<size_t>(bytes, 1));
    return *memory == nullptr ? told(cudaErrorMemoryAllocation) : cudaSuccess;
}
cudaError_t cudaFreeHost(void* memory) {
    const std::scoped_lock held(Device::get().lock);
    return memories().pinned.give_back(memory) ? cudaSuccess : told(cudaErrorInvalidValue);
}
cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total) {
    const std::scoped_lock held(Device::get().lock);
    *total = kTotalMemory;
    *free_bytes = kTotalMemory - memories().device.taken();
    return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* found, const void* address) {
    const std::scoped_lock held(Device::get().lock);
    *found = {};
    const std::string where = place(address);
    found->type = where == "device" ? cudaMemoryTypeDevice
                  : where == "host" ? cudaMemoryTypeHost
                                    : cudaMemoryTypeUnregistered;
    if (where != "pageable") found->devicePointer = found->hostPointer = const_cast<void*>(address);
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
    return told(copy(to, from, bytes, stream));
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
    if (const cudaError_t error = Device::get().wait("cudaMemcpy", nullptr); error != cudaSuccess)
        return told(error);
    return told(copy(to, from, bytes, nullptr));
}
cudaError_t cudaMemsetAsync(void*, int, size_t, cudaStream_t stream) {
    Device& device = Device::get();
    const std::scoped_lock held(device.lock);
    ++(device.stream_of(stream).capture ? device.counts.recorded : device.counts.kernels)["memset"];
    return told(device.enqueue(stream, cudaGraphNodeTypeMemset, "a memset", [] {}));
}

// --- streams and events

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
    auto* const made = new Stream;
    made->blocking = (flags & cudaStreamNonBlocking) == 0;
    *stream = reinterpret_cast<cudaStream_t>(made);
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t) {
    return cudaSuccess;  // kept: a graph's nodes may name it
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    return told(Device::get().wait("cudaStreamSynchronize", &Device::get().stream_of(stream)));
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
    Device& device = Device::get();
    const std::scoped_lock held(device.lock);
    if (device.stream_of(stream).capture)
        return told(device.refuse("cudaStreamQuery of a stream that is recorded",
                                  cudaErrorStreamCaptureUnsupported, &device.stream_of(stream)));
    return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    return told(Device::get().wait_event(stream, of(event)));
}
cudaError_t cudaStreamAddCallback(cudaStream_t stream, cudaStreamCallback_t callback, void* data, unsigned) {
    callback(stream, cudaSuccess, data);
    return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
    auto* const made = new Event;
    made->timed = (flags & cudaEventDisableTiming) == 0;
    *event = reinterpret_cast<cudaEvent_t>(made);
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) {
    return cudaEventCreateWithFlags(event, 0);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete reinterpret_cast<Event*>(event);
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    return told(Device::get().record(of(event), stream));
}
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned) {
    return cudaEventRecord(event, stream);
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
    Device& device = Device::get();
    const std::scoped_lock held(device.lock);
    if (of(event).capture)
        return told(device.refuse("cudaEventQuery of a recorded event", cudaErrorCapturedEvent));
    return told(device.check_allowed("cudaEventQuery"));
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    Device& device = Device::get();
    const std::scoped_lock held(device.lock);
    if (of(event).capture)
        return told(device.refuse("cudaEventSynchronize of a recorded event", cudaErrorCapturedEvent));
    return told(device.wait("cudaEventSynchronize", nullptr));
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t from, cudaEvent_t to) {
    const bool fit = of(from).timed && of(to).timed && of(from).recorded && of(to).recorded;
    if (!fit || of(from).capture || of(to).capture)
        return told(Device::get().refuse("cudaEventElapsedTime of events without times",
                                         cudaErrorInvalidResourceHandle));
    *ms = std::chrono::duration<float, std::milli>(of(to).at - of(from).at).count();
    return cudaSuccess;
}

// --- recordings

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
    return told(Device::get().begin_capture(Device::get().stream_of(stream), mode));
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
    Graph* made = nullptr;
    const cudaError_t error = Device::get().end_capture(Device::get().stream_of(stream), &made);
    *graph = reinterpret_cast<cudaGraph_t>(made);
    return told(error);
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
    return cudaStreamGetCaptureInfo(stream, status, nullptr, nullptr, nullptr, nullptr, nullptr);
}
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t handle, cudaStreamCaptureStatus* status,
                                     unsigned long long* id, cudaGraph_t* graph,
                                     const cudaGraphNode_t** dependencies, const cudaGraphEdgeData**,
                                     size_t* count) {
    Device& device = Device::get();
    const std::scoped_lock held(device.lock);
    const auto& capture = device.stream_of(handle).capture;
    *status = !capture               ? cudaStreamCaptureStatusNone
              : capture->invalidated ? cudaStreamCaptureStatusInvalidated
                                     : cudaStreamCaptureStatusActive;
    if (capture && id != nullptr) *id = capture->id;
    if (capture && graph != nullptr) *graph = reinterpret_cast<cudaGraph_t>(&capture->graph);
    if (dependencies != nullptr) *dependencies = nullptr;
    if (count != nullptr) *count = 0;
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
    *exec = reinterpret_cast<cudaGraphExec_t>(new Graph(*reinterpret_cast<Graph*>(graph)));
    return cudaSuccess;
}
cudaError_t cudaGraphGetNodes(cudaGraph_t handle, cudaGraphNode_t* nodes, size_t* count) {
    auto& graph = *reinterpret_cast<Graph*>(handle);
    for (size_t i = 0; nodes != nullptr && i < *count; ++i)
        nodes[i] = reinterpret_cast<cudaGraphNode_t>(&graph.nodes[i]);
    *count = graph.nodes.size();
    return cudaSuccess;
}
cudaError_t cudaGraphNodeGetType(cudaGraphNode_t node, cudaGraphNodeType* type) {
    *type = reinterpret_cast<Node*>(node)->type;
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    return told(Device::get().launch(*reinterpret_cast<Graph*>(exec), stream));
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete reinterpret_cast<Graph*>(graph);
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    delete reinterpret_cast<Graph*>(exec);
    return cudaSuccess;
}

// --- kernels

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

// --- the driver, of which ATen asks for single functions

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
