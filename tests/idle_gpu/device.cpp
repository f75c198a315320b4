#include "idle_gpu/device.h"
#include "idle_gpu/enqueue.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

namespace speedrun::idle_gpu {
namespace {

thread_local cudaStreamCaptureMode own_mode = cudaStreamCaptureModeGlobal;

// All that must be done before `nodes`, and they themselves.
std::set<size_t> reached(const Graph& graph, std::vector<size_t> nodes) {
    std::set<size_t> found;
    while (!nodes.empty()) {
        const size_t node = nodes.back();
        nodes.pop_back();
        if (!found.insert(node).second) continue;
        const auto& after = graph.nodes[node].after;
        nodes.insert(nodes.end(), after.begin(), after.end());
    }
    return found;
}

void merge(std::vector<size_t>& into, const std::vector<size_t>& nodes) {
    for (const size_t node : nodes)
        if (std::ranges::find(into, node) == into.end()) into.push_back(node);
}

// IDLE_GPU_REPORT names the file that a process leaves its counts in, with ".RANK" behind it under mpirun.
struct Report {
    ~Report() {
        const char* const path = std::getenv("IDLE_GPU_REPORT");
        const char* const rank = std::getenv("OMPI_COMM_WORLD_RANK");
        if (path != nullptr)
            std::ofstream(path + (rank == nullptr ? "" : "." + std::string(rank))) << Device::get().report();
    }
};

}  // namespace

Device& Device::get() {
    static auto* const device = new Device;  // outlives whatever still asks at the end
    static const Report report;
    return *device;
}

Stream& Device::stream_of(cudaStream_t handle) {
    return handle == nullptr ? legacy : *reinterpret_cast<Stream*>(handle);
}

cudaError_t Device::refuse(const std::string& why, cudaError_t error, Stream* stream) {
    ++counts.refused[why];
    if (stream != nullptr && stream->capture) stream->capture->invalidated = true;
    return error;
}

cudaError_t Device::check_allowed(const char* call) {
    const std::scoped_lock held(lock);
    if (own_mode == cudaStreamCaptureModeRelaxed) return cudaSuccess;
    for (Stream* const origin : capturing) {
        const Capture& capture = *origin->capture;
        const bool own = capture.thread == std::this_thread::get_id();
        const bool concerns =
            own ? capture.mode != cudaStreamCaptureModeRelaxed
                : own_mode == cudaStreamCaptureModeGlobal && capture.mode == cudaStreamCaptureModeGlobal;
        if (concerns)
            return refuse(std::string(call) + " in a recording", cudaErrorStreamCaptureUnsupported, origin);
    }
    return cudaSuccess;
}

cudaError_t Device::enqueue(cudaStream_t handle, cudaGraphNodeType type, const std::string& name,
                            std::function<void()> work) {
    const std::scoped_lock held(lock);
    Stream& stream = stream_of(handle);
    if (!stream.capture) {
        const bool waits_for_one = std::ranges::any_of(
            capturing, [&](const Stream* origin) { return &stream == &legacy && origin->blocking; });
        if (waits_for_one)
            return refuse(name + " on the legacy stream in a recording", cudaErrorStreamCaptureImplicit);
        work();
        return cudaSuccess;
    }
    if (stream.capture->invalidated) return cudaErrorStreamCaptureInvalidated;
    auto& nodes = stream.capture->graph.nodes;
    nodes.push_back({type, std::move(work), stream.last});
    stream.last = {nodes.size() - 1};
    return cudaSuccess;
}

cudaError_t Device::begin_capture(Stream& stream, cudaStreamCaptureMode mode) {
    const std::scoped_lock held(lock);
    if (&stream == &legacy)
        return refuse("cudaStreamBeginCapture of the legacy stream", cudaErrorStreamCaptureUnsupported);
    if (stream.capture) return refuse("cudaStreamBeginCapture twice", cudaErrorIllegalState, &stream);
    stream.capture = std::make_shared<Capture>();
    stream.capture->id = ++captures_;
    stream.capture->origin = &stream;
    stream.capture->thread = std::this_thread::get_id();
    stream.capture->mode = mode;
    stream.capture->streams = {&stream};
    stream.last.clear();
    capturing.insert(&stream);
    return cudaSuccess;
}

cudaError_t Device::end_capture(Stream& stream, Graph** graph) {
    const std::scoped_lock held(lock);
    *graph = nullptr;
    const std::shared_ptr<Capture> capture = stream.capture;
    if (!capture) return refuse("cudaStreamEndCapture without a recording", cudaErrorIllegalState);
    if (capture->origin != &stream)
        return refuse("cudaStreamEndCapture of another stream", cudaErrorStreamCaptureUnmatched, &stream);
    if (capture->mode != cudaStreamCaptureModeRelaxed && capture->thread != std::this_thread::get_id())
        return refuse("cudaStreamEndCapture by another thread", cudaErrorStreamCaptureWrongThread, &stream);
    const std::set<size_t> joined = reached(capture->graph, stream.last);
    const bool unjoined = std::ranges::any_of(capture->streams, [&](const Stream* other) {
        return std::ranges::any_of(other->last, [&](size_t node) { return !joined.contains(node); });
    });
    capturing.erase(&stream);
    for (Stream* const other : capture->streams) {
        other->capture.reset();
        other->last.clear();
    }
    if (capture->invalidated) return cudaErrorStreamCaptureInvalidated;
    if (unjoined)
        return refuse("a recording with work that nothing waits for", cudaErrorStreamCaptureUnjoined);
    *graph = new Graph(std::move(capture->graph));
    return cudaSuccess;
}

cudaError_t Device::record(Event& event, cudaStream_t handle) {
    const std::scoped_lock held(lock);
    Stream& stream = stream_of(handle);
    event.recorded = true;
    event.at = Clock::now();
    event.capture = stream.capture;
    event.after = stream.last;
    return cudaSuccess;
}

cudaError_t Device::wait_event(cudaStream_t handle, const Event& event) {
    const std::scoped_lock held(lock);
    Stream& stream = stream_of(handle);
    if (!event.recorded) return cudaSuccess;
    if (!event.capture) {
        if (stream.capture)
            return refuse("a recording waits for an event from outside", cudaErrorStreamCaptureIsolation,
                          &stream);
        return cudaSuccess;
    }
    if (stream.capture && stream.capture != event.capture)
        return refuse("two recordings that would be one", cudaErrorStreamCaptureMerge, &stream);
    if (&stream == &legacy)
        return refuse("the legacy stream waits for a recording", cudaErrorStreamCaptureImplicit);
    if (!capturing.contains(event.capture->origin))
        return refuse("an event of a recording that has ended", cudaErrorCapturedEvent);
    if (!stream.capture) {
        stream.capture = event.capture;
        stream.last.clear();
        event.capture->streams.insert(&stream);
    }
    merge(stream.last, event.after);
    return cudaSuccess;
}

cudaError_t Device::launch(const Graph& graph, cudaStream_t handle) {
    const std::scoped_lock held(lock);
    if (stream_of(handle).capture) return refuse("a graph within a recording", cudaErrorNotSupported);
    ++counts.graph_launches;
    for (const Node& node : graph.nodes) {
        counts.graph_kernels += node.type == cudaGraphNodeTypeKernel ? 1 : 0;
        counts.graph_copies += node.type == cudaGraphNodeTypeMemcpy ? 1 : 0;
        node.work();
    }
    return cudaSuccess;
}

cudaError_t Device::wait(const char* call, Stream* stream) {
    const std::scoped_lock held(lock);
    if (stream != nullptr && stream->capture)
        return refuse(std::string(call) + " of a stream that is recorded", cudaErrorStreamCaptureUnsupported,
                      stream);
    if (stream == nullptr)
        if (const cudaError_t error = check_allowed(call); error != cudaSuccess) return error;
    ++counts.waits[call];
    return cudaSuccess;
}

std::string Device::report() const {
    const std::scoped_lock held(lock);
    const nlohmann::json found{{"kernels", counts.kernels},
                               {"recorded", counts.recorded},
                               {"graph_launches", counts.graph_launches},
                               {"graph_kernels", counts.graph_kernels},
                               {"graph_copies", counts.graph_copies},
                               {"waits", counts.waits},
                               {"copies", counts.copies},
                               {"pageable_bytes", counts.pageable_bytes},
                               {"device_allocations", counts.device_allocations},
                               {"host_allocations", counts.host_allocations},
                               {"refused", counts.refused}};
    return found.dump(1);
}

cudaError_t launch_kernel(const std::string& name, dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
                          const std::function<void()>& work) {
    Device& device = Device::get();
    const std::scoped_lock held(device.lock);
    const uint64_t threads = uint64_t{block.x} * block.y * block.z;
    if (threads == 0 || threads > 1024 || grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 ||
        grid.z > 65535 || grid.x > 2147483647U || block.z > 64)
        return device.refuse(name + ": its grid or block", cudaErrorInvalidConfiguration);
    if (shared > size_t{227} << 10)
        return device.refuse(name + ": its shared memory", cudaErrorInvalidConfiguration);
    ++(device.stream_of(stream).capture ? device.counts.recorded : device.counts.kernels)[name];
    return device.enqueue(stream, cudaGraphNodeTypeKernel, name, work);
}

}  // namespace speedrun::idle_gpu

extern "C" cudaError_t idle_gpu_enqueue(cudaStream_t stream, const char* name,
                                        const std::function<void()>& work) {
    return speedrun::idle_gpu::launch_kernel(name, dim3(1), dim3(1), 0, stream, work);
}
extern "C" cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
    std::swap(*mode, speedrun::idle_gpu::own_mode);
    return cudaSuccess;
}
