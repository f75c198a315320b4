#pragma once
// Times every node of a model in passes as they are trained.
#include <c10/core/Device.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "app/bench/ops/table.h"
#include "app/bench/timing.h"
#include "model/graph/graph.h"
#include "model/step_probe.h"

namespace speedrun {

// Notes when the device comes to each node. Of every node and direction it keeps the shortest time, so that
// what else the machine does counts for nothing.
class NodeTimer final : public StepProbe {
  public:
    explicit NodeTimer(at::Device device) : device_(device) {}
    void enter(StepPart part) override;
    void enter(const Node& node, Direction direction) override;

    void end_pass();  // on a GPU waits for it

    // One row for all nodes of a kind, direction and shape, in the order of the first pass: the mean of their
    // shortest times, and how often a step of `micro_batches` passes comes to them.
    std::vector<TimedOp> rows(const PassShape& shape, double micro_batches) const;

  private:
    using Key = std::pair<const Node*, Direction>;  // no node: between the nodes
    struct Entry {
        Key key;
        Moment began;
    };
    at::Device device_;
    std::vector<Entry> entries_;
    std::vector<Key> order_;
    std::map<Key, double> shortest_ms_;
};

}  // namespace speedrun
