#include "model/nodes/bigram.h"

#include "model/pass.h"
#include "ops/embedding.h"
#include "ops/multiply_rows.h"

namespace speedrun {

BigramNode::BigramNode(GraphBuilder& build, const Bigram& bigram, const std::string& path)
    : Node(path, "bigram", StepPart::norms),
      table_(build.whole(bigram.table, path + ".table")),
      dims_(table_.shape.back()),
      d_(build.model().d_model),
      grad_item_(build.grad_item(table_)) {
    if (dims_ > d_)
        build.report().fail(path + ".table", "has more channels than the model",
                            {std::to_string(dims_), "1 .. " + std::to_string(d_), ""});
    build.use(*this, table_, WeightUse::Kind::looked_up, {table_.shape.front(), dims_}, path + ".table");
    table_item_ = build.used_item(weights_.back());
    if (!bigram.signs.empty()) {
        signs_ = build.whole(bigram.signs, path + ".signs");
        build.use(*this, signs_, WeightUse::Kind::looked_up, {signs_.shape.front(), dims_}, path + ".signs");
        signs_item_ = build.used_item(weights_.back());
    }
    out_ = build.declare(*this, path, d_);
}

// Of the gradient at most one row a token is read and written.
NodeCost BigramNode::cost(const PassShape& shape) const {
    const auto rows = static_cast<double>(shape.tokens), cells = rows * static_cast<double>(dims_);
    const auto item = static_cast<double>(shape.item), grad = static_cast<double>(grad_item_);
    const double out = rows * static_cast<double>(d_) * item,
                 signs = cells * static_cast<double>(signs_item_), product = has_signs() ? cells * item : 0;
    return {.forward = {.read = cells * static_cast<double>(table_item_) + signs + product + 4 * rows,
                        .written = out + product},
            .backward = {.read = cells * (item + grad) + signs + product + 4 * rows,
                         .written = cells * grad + product},
            .forward_scratch = {},
            .backward_scratch = {.passing = has_signs() ? shape.tokens * dims_ * shape.item : 0}};
}

std::string BigramNode::shape() const {
    return std::to_string(table_.shape[0]) + "x" + std::to_string(dims_);
}

void BigramNode::forward(Pass& pass) const {
    const at::Tensor& out = pass.workspace.allocate(out_);  // [T, d]
    if (dims_ < d_) out.narrow(1, dims_, d_ - dims_).zero_();
    const at::Tensor rows = out.narrow(1, 0, dims_);
    ops::embedding(pass.parameters.used(table_), pass.bigram_rows, rows);
    if (has_signs()) ops::multiply_rows(rows, pass.parameters.used(signs_), pass.sign_rows, rows);
}

// The gradient may be memory that other values share, so that its product with the signs needs its own.
void BigramNode::backward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    const at::Tensor dout = ws.grad(out_).narrow(1, 0, dims_), dtable = pass.parameters.grad(table_);
    if (!has_signs()) return ops::embedding_backward(dout, pass.bigram_rows, dtable);
    at::Tensor drows = ws.scratch({dout.size(0), dims_}, dout.scalar_type());
    ops::multiply_rows(dout, pass.parameters.used(signs_), pass.sign_rows, drows);
    ops::embedding_backward(drows, pass.bigram_rows, dtable);
    ws.release_scratch(std::move(drows));
}

}  // namespace speedrun
