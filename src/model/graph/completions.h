#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "model/graph/graph.h"

namespace speedrun {

// Elements [begin, end) of a parameter.
struct ElementRange {
    std::string param;
    int64_t begin = 0, end = 0;
    bool operator==(const ElementRange&) const = default;
};

// Which gradients are complete after the backward of each node; the last element: after that of the scalars,
// which train the elements that coefficients read. Backward goes through the nodes in reverse, so the first
// node of forward that reads a part completes it. Every element of every parameter is there once.
std::vector<std::vector<ElementRange>> gradient_completions(const Graph& graph, const ModelConfig& model);

}  // namespace speedrun
