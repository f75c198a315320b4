#include "ops/recording.h"

#include <array>
#include <string>

#include "util/error.h"

namespace speedrun::ops {
namespace {

std::unique_ptr<speedrun::cuda::Graph> record(const std::function<void()>& work,
                                              speedrun::cuda::Graphs& graphs) {
    auto graph = graphs.make();
    try {
        graph->record(work);
    } catch (const InternalError&) {
        throw;  // of the work, not of its recording
    } catch (const std::exception& error) {
        throw UserError(std::string("a part of a step cannot be recorded as a CUDA graph: ") + error.what() +
                        "; runtime.cuda_graphs=false does without");
    }
    return graph;
}

}  // namespace

void Recording::run(std::span<const WorkPart> parts, speedrun::cuda::Graphs& graphs) {
    check(graphs_.empty() || graphs_.size() == parts.size(), "a recording of other parts");
    const bool recorded = !graphs_.empty();
    for (size_t i = 0; i < parts.size(); ++i) {
        if (!ready_) {
            parts[i].device();
        } else {
            if (!recorded) graphs_.push_back(record(parts[i].device, graphs));
            graphs_[i]->launch();
        }
        if (parts[i].host) parts[i].host();
    }
    ready_ = true;
}

void Recording::run(const std::function<void()>& device, speedrun::cuda::Graphs& graphs) {
    run(std::array{WorkPart{device, {}}}, graphs);
}

}  // namespace speedrun::ops
