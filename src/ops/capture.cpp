#include "ops/capture.h"

#include <array>
#include <string>

#include "util/error.h"

namespace speedrun::ops {
namespace {

std::unique_ptr<speedrun::cuda::Graph> capture_part(const std::function<void()>& work,
                                                    speedrun::cuda::Graphs& graphs) {
    auto graph = graphs.make();
    try {
        graph->capture(work);
    } catch (const InternalError&) {
        throw;  // of the work, not of its capture
    } catch (const std::exception& error) {
        throw UserError(std::string("a part of a step cannot be captured as a CUDA graph: ") + error.what() +
                        "; runtime.cuda_graphs=false does without");
    }
    return graph;
}

}  // namespace

void Capture::run(std::span<const WorkPart> parts, speedrun::cuda::Graphs& graphs) {
    check(graphs_.empty() || graphs_.size() == parts.size(), "a capture of other parts");
    const bool captured = !graphs_.empty();
    for (size_t i = 0; i < parts.size(); ++i) {
        if (!ready_) {
            parts[i].device();
        } else {
            if (!captured) graphs_.push_back(capture_part(parts[i].device, graphs));
            graphs_[i]->launch();
        }
        if (parts[i].host) parts[i].host();
    }
    ready_ = true;
}

void Capture::run(const std::function<void()>& device, speedrun::cuda::Graphs& graphs) {
    run(std::array{WorkPart{device, {}}}, graphs);
}

}  // namespace speedrun::ops
