#pragma once
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "ops/cuda/graph.h"

namespace speedrun::ops {

// Work for a device, and what the host does when the device has been given it.
struct WorkPart {
    std::function<void()> device;
    std::function<void()> host;  // may be empty
};

// Work that comes again and again: done as it is the first time, which makes everything ready that it needs,
// recorded the second, and from then on started part by part with one call each.
class Capture {
  public:
    // The parts are the same each time, but for the contents of tensors that stay where they are and for what
    // `host` does. A part that cannot be recorded is a UserError that names runtime.cuda_graphs.
    void run(std::span<const WorkPart> parts, speedrun::cuda::Graphs& graphs);
    void run(const std::function<void()>& device, speedrun::cuda::Graphs& graphs);

  private:
    bool ready_ = false;
    std::vector<std::unique_ptr<speedrun::cuda::Graph>> graphs_;
};

}  // namespace speedrun::ops
