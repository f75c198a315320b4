#pragma once
// Captured work of a GPU without a type of CUDA's or torch's: the module libspeedrun_cuda.so makes it of
// CUDA's graphs, tests of functions.
#include <cstdint>
#include <functional>
#include <memory>

namespace speedrun::cuda {

// Work that is captured once, and from then on started by one call.
class Graph {
  public:
    virtual ~Graph() = default;

    // Calls `work`, and keeps what it gives the current stream instead of doing it: ops with their arguments
    // as they are now, so that numbers which vary must lie in memory that stays where it is. What `work`
    // allocates and lets go belongs to its Graphs. Once. Throws where work does what cannot be captured, such
    // as waiting for the device.
    virtual void capture(const std::function<void()>& work) = 0;
    // Starts the captured work on the current stream.
    virtual void launch() = 0;
    // How many kernels a launch runs.
    virtual int64_t kernels() const = 0;
};

// Makes graphs that share memory for what they allocate: they run one after the other.
class Graphs {
  public:
    virtual ~Graphs() = default;
    virtual std::unique_ptr<Graph> make() = 0;
};

struct GraphTable {
    std::unique_ptr<Graphs> (*make)();  // of the current GPU
    // How often ATen has asked CUDA for memory, on the current GPU.
    int64_t (*device_allocations)();
    // While it is on, an op of ATen's that waits for the device throws.
    void (*forbid_waiting)(bool on);
};

}  // namespace speedrun::cuda

// What the module has; never null.
extern "C" const speedrun::cuda::GraphTable* speedrun_cuda_graphs();
