// CUDA's runtime for the idle GPU: streams, events and recordings.
#include <cuda_runtime_api.h>

#include <chrono>

#include "idle_gpu/device.h"

namespace speedrun::idle_gpu {
namespace {

Event& of(cudaEvent_t event) {
    return *reinterpret_cast<Event*>(event);
}

}  // namespace
}  // namespace speedrun::idle_gpu

using namespace speedrun::idle_gpu;

extern "C" {

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
}
