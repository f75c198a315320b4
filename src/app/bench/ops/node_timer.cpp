#include "app/bench/ops/node_timer.h"

#include <algorithm>

namespace speedrun {
namespace {

// The row that a node belongs to.
TimedOp empty_row(const Node& node, Direction direction) {
    TimedOp row;
    row.op.name = std::string(node.kind()) + (direction == Direction::forward ? ".forward" : ".backward");
    row.op.shape = node.shape();
    return row;
}

bool same_row(const TimedOp& a, const TimedOp& b) {
    return a.op.name == b.op.name && a.op.shape == b.op.shape;
}

}  // namespace

void NodeTimer::enter(StepPart) {
    entries_.push_back({{nullptr, Direction::forward}, Moment(device_)});
}

void NodeTimer::enter(const Node& node, Direction direction) {
    entries_.push_back({{&node, direction}, Moment(device_)});
}

void NodeTimer::end_pass() {
    const Moment end(device_);
    for (size_t i = 0; i < entries_.size(); ++i) {
        const auto& [key, began] = entries_[i];
        if (!key.first) continue;
        const Moment& next = i + 1 < entries_.size() ? entries_[i + 1].began : end;
        const double ms = next.ms_since(began);
        const auto [at, first] = shortest_ms_.emplace(key, ms);
        if (first) order_.push_back(key);
        at->second = std::min(at->second, ms);
    }
    entries_.clear();
}

std::vector<TimedOp> NodeTimer::rows(const PassShape& shape, double micro_batches) const {
    std::vector<TimedOp> rows;
    for (const Key& key : order_) {
        const auto& [node, direction] = key;
        const TimedOp own = empty_row(*node, direction);
        auto row = std::ranges::find_if(rows, [&](const TimedOp& other) { return same_row(own, other); });
        if (row == rows.end()) row = rows.insert(row, own);
        const NodeCost cost = node->cost(shape);
        const Work& work = direction == Direction::forward ? cost.forward : cost.backward;
        row->op.per_step += 1;
        row->ms += shortest_ms_.at(key);
        row->op.flop += work.flop + work.head_flop;
        row->op.bytes += work.bytes();
    }
    for (auto& [op, ms, kernels] : rows) {
        ms /= op.per_step;
        op.flop /= op.per_step;
        op.bytes /= op.per_step;
        op.per_step *= micro_batches;
    }
    return rows;
}

}  // namespace speedrun
