#include "model/nodes/embed.h"

#include "model/pass.h"
#include "ops/embedding.h"

namespace speedrun {

EmbedNode::EmbedNode(GraphBuilder& build, const std::string& name, const WeightRef& table,
                     const std::string& path)
    : Node(name, "embed", StepPart::norms), table_(table), d_(build.model().d_model) {
    build.use(*this, table, WeightUse::Kind::looked_up, {build.model().vocab_size, d_}, path);
    table_item_ = build.used_item(weights_.front());
    grad_item_ = build.grad_item(table);
    out_ = build.declare(*this, name, d_);
}

EmbedNode::EmbedNode(GraphBuilder& build, const std::string& name, const WeightRef& table,
                     const WeightRef& tied_to, const std::string& path)
    : EmbedNode(build, name, table, path) {
    tied_to_ = tied_to;
    build.use(*this, tied_to, WeightUse::Kind::looked_up, {build.model().vocab_size, d_}, path);
}

const WeightRef& EmbedNode::table(const Pass& pass) const {
    return pass.tied && !tied_to_.param.empty() ? tied_to_ : table_;
}

// Of the gradient at most one row a token is read and written.
NodeCost EmbedNode::cost(const PassShape& shape) const {
    const auto rows = static_cast<double>(shape.tokens), cells = rows * static_cast<double>(d_);
    const auto item = static_cast<double>(shape.item), table = static_cast<double>(table_item_),
               grad = static_cast<double>(grad_item_);
    return {.forward = {.read = cells * table + 4 * rows, .written = cells * item},
            .backward = {.read = cells * (item + grad) + 4 * rows, .written = cells * grad}};
}

std::string EmbedNode::shape() const {
    return std::to_string(table_.shape[0]) + "x" + std::to_string(d_);
}

void EmbedNode::forward(Pass& pass) const {
    ops::embedding(pass.parameters.used(table(pass)), pass.inputs, pass.workspace.allocate(out_));  // [T, d]
}

void EmbedNode::backward(Pass& pass) const {
    ops::embedding_backward(pass.workspace.grad(out_), pass.inputs, pass.parameters.grad(table(pass)));
}

}  // namespace speedrun
