#include "model/nodes/key_offset.h"

#include <fmt/format.h>

#include "model/pass.h"
#include "ops/key_offset.h"
#include "util/error.h"

namespace speedrun {

KeyOffsetNode::KeyOffsetNode(GraphBuilder& build, const std::string& path, ValueId k,
                             const std::vector<HeadChannels>& channels)
    : Node(path, "key_offset", StepPart::norms),
      k_(k),
      channels_(channels),
      heads_(build.model().n_head),
      head_dim_(build.model().head_dim) {
    if (channels.size() > ops::most_offset_channels)
        build.report().fail(
            path, "too many ranges",
            {std::to_string(channels.size()), fmt::format("at most {}", ops::most_offset_channels), ""});
    int64_t end = 0;
    for (size_t i = 0; i < channels.size(); end = channels[i++].end)
        if (channels[i].begin < end || channels[i].begin >= channels[i].end || channels[i].end > head_dim_)
            build.report().fail(join_path(path, i) + ".channels", "no channels of a head after those before",
                                {fmt::format("[{}, {}]", channels[i].begin, channels[i].end),
                                 fmt::format("{} <= begin < end <= {}", end, head_dim_), ""});
    build.read(*this, k, GraphBuilder::Read::forward);
    y_ = build.declare(*this, path, heads_ * head_dim_);
}

NodeCost KeyOffsetNode::cost(const PassShape& shape) const {
    const double cells = static_cast<double>(shape.tokens * heads_ * head_dim_ * shape.item);
    return {.forward = {.read = cells, .written = cells}, .backward = {.read = cells, .written = cells}};
}

std::string KeyOffsetNode::shape() const {
    return fmt::format("{}x{}", heads_, head_dim_);
}

// [T, H * D] as [T, H, D]
at::Tensor KeyOffsetNode::heads_of(const at::Tensor& x) const {
    return x.view({x.size(0), heads_, head_dim_});
}

void KeyOffsetNode::forward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    ops::key_offset(heads_of(ws.value(k_)), channels_, heads_of(ws.allocate(y_)));
}

void KeyOffsetNode::backward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    const auto [dk, accumulate] = ws.grad_target(k_);
    check(!accumulate, name() + ": its input has another reader");
    ops::key_offset_backward(heads_of(ws.grad(y_)), channels_, heads_of(dk));
}

}  // namespace speedrun
