#pragma once
// The idle GPU: what CUDA's runtime keeps of streams, events and recordings. Work of kernels is not done.
#include <cuda_runtime_api.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace speedrun::idle_gpu {

using Clock = std::chrono::steady_clock;

struct Node {
    cudaGraphNodeType type;
    std::function<void()> work;
    std::vector<size_t> after;  // nodes of the same graph
};
struct Graph {
    std::vector<Node> nodes;
};

struct Stream;

// Work of the streams that take part goes into `graph`.
struct Capture {
    uint64_t id = 0;
    Stream* origin = nullptr;
    std::thread::id thread;
    cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
    bool invalidated = false;
    std::set<Stream*> streams;
    Graph graph;
};

struct Stream {
    bool blocking = false;  // waits for the legacy stream, and it for this one
    std::shared_ptr<Capture> capture;
    std::vector<size_t> last;  // in a recording: what the next node comes after
};

struct Event {
    bool timed = true, recorded = false;
    Clock::time_point at;
    std::shared_ptr<Capture> capture;  // in which it was recorded
    std::vector<size_t> after;
};

// What a process has asked of it.
struct Counts {
    std::map<std::string, int64_t> kernels;   // launched one by one, by name
    std::map<std::string, int64_t> recorded;  // kernels, when they became part of a graph
    int64_t graph_launches = 0, graph_kernels = 0;
    std::map<std::string, int64_t> waits;   // of the host for the device, by call
    std::map<std::string, int64_t> copies;  // one by one: "host to device", "pageable to device", ...
    int64_t pageable_bytes = 0;             // to and from memory of the host that is not pinned
    int64_t graph_copies = 0;
    int64_t device_allocations = 0, host_allocations = 0;
    std::map<std::string, int64_t> refused;  // what CUDA would have refused
};

class Device {
  public:
    static Device& get();

    // Does `work` in the order of `stream`, or makes it a node of the graph that the stream is recorded into.
    cudaError_t enqueue(cudaStream_t stream, cudaGraphNodeType type, const std::string& name,
                        std::function<void()> work);
    cudaError_t begin_capture(Stream& stream, cudaStreamCaptureMode mode);
    cudaError_t end_capture(Stream& stream, Graph** graph);
    cudaError_t record(Event& event, cudaStream_t stream);
    cudaError_t wait_event(cudaStream_t stream, const Event& event);
    cudaError_t launch(const Graph& graph, cudaStream_t stream);
    // The host waits for `stream`, or nullptr: for all of them.
    cudaError_t wait(const char* call, Stream* stream);
    // A call that a recording may forbid (CUDA's "potentially unsafe" ones).
    cudaError_t check_allowed(const char* call);
    // Counts and returns what CUDA refuses; the recording of `stream` is lost.
    cudaError_t refuse(const std::string& why, cudaError_t error, Stream* stream = nullptr);

    Stream& stream_of(cudaStream_t handle);
    std::string report() const;

    mutable std::recursive_mutex lock;
    Counts counts;
    std::set<Stream*> capturing;  // origins
    Stream legacy{.blocking = true, .capture = {}, .last = {}};

  private:
    uint64_t captures_ = 0;
};

constexpr size_t kTotalMemory = size_t{80} << 30;  // bytes

// What the calling thread's cudaGetLastError() will return, unless it is success. Returns it.
cudaError_t told(cudaError_t error);

// cudaLaunchKernel and its relatives, after they have found the kernel's name.
cudaError_t launch_kernel(
    const std::string& name, dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
    const std::function<void()>& work = [] {});

}  // namespace speedrun::idle_gpu
