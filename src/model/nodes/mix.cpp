#include "model/nodes/mix.h"

#include <algorithm>

#include "model/pass.h"
#include "ops/mix.h"
#include "ops/norm.h"

namespace speedrun {

MixNode::MixNode(GraphBuilder& build, const std::string& name, const std::vector<Term>& terms)
    : Node(name, "mix", StepPart::norms),
      d_(build.value(terms.front().source).channels),
      eps_(build.model().norm_eps) {
    using Read = GraphBuilder::Read;
    std::vector<Coefficient> scalars;
    for (const Term& term : terms) scalars.push_back(term.coefficient.scalar);
    first_scalar_ = build.add_scalars(*this, scalars);
    for (size_t j = 0; j < terms.size(); ++j) {
        const auto& [coefficient, source] = terms[j];
        const bool trainable = build.trainable(first_scalar_ + static_cast<int64_t>(j));
        from_.push_back({source, coefficient.factor, trainable, coefficient.is_one()});
        const bool read_again = trainable || coefficient.factor.value >= 0;
        build.read(*this, source, read_again ? Read::forward_and_backward : Read::forward);
        if (coefficient.factor.value >= 0)
            build.read(*this, coefficient.factor.value, Read::forward_and_backward);
    }
    y_ = build.declare(*this, name, d_);
    build.norm_by(y_, *this);
}

ValueId MixNode::normed(GraphBuilder& build) {
    using Read = GraphBuilder::Read;
    if (normed_ >= 0) return normed_;
    normed_ = build.declare(*this, name() + ".norm", d_);
    rstd_ = build.declare(*this, name() + ".rstd", 1, Value::Element::fp32);
    build.read(*this, y_, Read::forward_and_backward);
    build.read(*this, rstd_, Read::forward_and_backward);
    return normed_;
}

// A source whose coefficient is 1 takes the gradient over as it is, unless it has one already.
NodeCost MixNode::cost(const PassShape& shape) const {
    const auto rows = static_cast<double>(shape.tokens);
    const double cells = rows * static_cast<double>(d_ * shape.item);
    double trained = 0, passed = 0, factors = 0;
    for (const Source& source : from_) {
        const bool factor = source.factor.value >= 0;
        trained += source.trainable || factor ? 1 : 0;
        passed += source.is_one ? 0 : 1;
        factors += factor ? 4 * rows * static_cast<double>(source.factor.columns) : 0;
    }
    const double norm = normed_ >= 0 ? 1 : 0, sources = static_cast<double>(from_.size());
    const double backward = passed > 0 ? 1 : 0;
    return {
        .forward = {.read = sources * cells + factors, .written = (1 + norm) * cells + 4 * norm * rows},
        .backward = {.read = backward * (1 + trained) * cells + 2 * factors + norm * (3 * cells + 4 * rows),
                     .written = passed * cells + factors + norm * cells}};
}

std::string MixNode::shape() const {
    return std::to_string(from_.size()) + (normed_ >= 0 ? "+norm x " : " x ") + std::to_string(d_);
}

at::Tensor MixNode::factor_of(const at::Tensor& all, const TokenFactor& factor) const {
    return all.narrow(1, factor.first, factor.columns);  // [T, columns]
}

void MixNode::forward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    std::vector<ops::MixSource> sources;
    for (const Source& source : from_) {
        ops::MixSource& next =
            sources.emplace_back(ws.value(source.value), at::Tensor(), source.factor.offset);
        if (source.factor.value >= 0) next.factor = factor_of(ws.value(source.factor.value), source.factor);
    }
    const at::Tensor c = pass.scalars.values(first_scalar_, std::ssize(sources));
    if (normed_ >= 0)
        ops::mix_norm(sources, c, eps_, ws.allocate(y_), ws.allocate(normed_), ws.allocate(rstd_).view({-1}));
    else
        ops::mix(sources, c, ws.allocate(y_));
}

void MixNode::backward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    if (normed_ >= 0) {
        const auto dy = ws.grad_target(y_);
        ops::rms_norm_backward(ws.grad(normed_), ws.value(y_), ws.value(rstd_).view({-1}), dy.tensor,
                               dy.accumulate);
        ws.release(normed_);
    }
    const at::Tensor dy = ws.grad(y_);
    std::vector<ops::MixSourceGrad> grads(from_.size());
    bool anything = false;
    for (size_t j = 0; j < from_.size(); ++j) {
        const Source& source = from_[j];
        ops::MixSourceGrad& grad = grads[j];
        grad.wants_coefficient = source.trainable;
        if (source.factor.value >= 0) {
            grad.source.factor = factor_of(ws.value(source.factor.value), source.factor);
            grad.source.offset = source.factor.offset;
            grad.dfactor = factor_of(ws.grad_to_add_to(source.factor.value), source.factor);
        }
        if (source.trainable || grad.dfactor.defined()) grad.source.x = ws.value(source.value);
        if (source.is_one && ws.may_share(source.value)) {
            ws.share_grad(y_, source.value);
            continue;
        }
        anything = true;
        const auto twin = std::find_if(from_.begin(), from_.begin() + static_cast<ptrdiff_t>(j),
                                       [&](const Source& before) { return before.value == source.value; });
        if (const auto k = static_cast<size_t>(twin - from_.begin()); k < j && grads[k].dx.defined()) {
            grad.dx = grads[k].dx;  // a source used twice, as x0 is where it is also x
            grad.accumulate = true;
            continue;
        }
        auto target = ws.grad_target(source.value);
        grad.dx = std::move(target.tensor);
        grad.accumulate = target.accumulate;
    }
    if (!anything) return;
    const int64_t count = std::ssize(from_);
    ops::mix_backward(dy, grads, pass.scalars.values(first_scalar_, count),
                      pass.scalars.grads(first_scalar_, count));
}

}  // namespace speedrun
