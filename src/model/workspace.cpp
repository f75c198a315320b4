#include "model/workspace.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "util/error.h"

namespace speedrun {

Workspace::Workspace(std::vector<Value> values, at::ScalarType activations, at::Device device)
    : values_(std::move(values)),
      activations_(activations),
      slots_(values_.size()),
      parts_(values_.size()),
      arena_(device) {
    int nodes = 0;
    for (const Value& value : values_) nodes = std::max(nodes, value.last_forward_reader + 1);
    released_after_.resize(static_cast<size_t>(nodes));
    released_always_.resize(static_cast<size_t>(nodes));
    for (size_t id = 0; id < values_.size(); ++id) {
        const Value& value = values_[id];
        if (value.whole >= 0) {
            parts_[static_cast<size_t>(value.whole)].push_back(static_cast<ValueId>(id));
            continue;
        }
        if (value.last_forward_reader < 0) continue;
        const auto node = static_cast<size_t>(value.last_forward_reader);
        (value.kept_for_backward ? released_after_ : released_always_)[node].push_back(
            static_cast<ValueId>(id));
    }
}

void Workspace::begin(int64_t tokens, bool training) {
    for (size_t id = 0; id < slots_.size(); ++id) release(static_cast<ValueId>(id));
    tokens_ = tokens;
    training_ = training;
}

at::Tensor Workspace::channels_of(const at::Tensor& whole, ValueId part) const {
    return whole.narrow(1, spec(part).first, spec(part).channels);
}

at::Tensor Workspace::acquire(ValueId id) {
    const bool wide = spec(id).element == Value::Element::fp32;
    return arena_.acquire({tokens_, spec(id).channels}, wide ? at::kFloat : activations_);
}

at::Tensor Workspace::value(ValueId id) const {
    if (spec(id).whole >= 0) return channels_of(value(spec(id).whole), id);
    const at::Tensor& data = slot(id).data;
    check(data.defined(), spec(id).name + " is read and not there");
    return data;
}

const at::Tensor& Workspace::allocate(ValueId id) {
    check(spec(id).whole < 0 && !slot(id).data.defined(), spec(id).name + " is a part, or is written twice");
    return slot(id).data = acquire(id);
}

void Workspace::end_forward_node(int node) {
    if (static_cast<size_t>(node) >= released_after_.size()) return;
    for (const ValueId id : released_always_[static_cast<size_t>(node)]) drop_data(id);
    if (training_) return;
    for (const ValueId id : released_after_[static_cast<size_t>(node)]) drop_data(id);
}

void Workspace::release(ValueId id) {
    drop_data(id);
    drop_grad(id);
}

void Workspace::drop_data(ValueId id) {
    at::Tensor& data = slot(id).data;
    if (data.defined()) arena_.release(std::exchange(data, {}));
}

void Workspace::drop_grad(ValueId id) {
    for (const ValueId part : parts_[static_cast<size_t>(id)]) slot(part).part_written = false;
    Slot& own = slot(id);
    if (!own.grad.defined()) return;
    if (own.grad.use_count() == 1 && !own.foreign) arena_.release(std::exchange(own.grad, {}));
    own.grad.reset();
    own.foreign = false;
}

// A gradient shared with a value whose backward has yet to read it is copied.
void Workspace::own_grad(ValueId id) {
    Slot& shared = slot(id);
    if (shared.grad.use_count() == 1) return;
    at::Tensor own = acquire(id);
    own.copy_(shared.grad);
    shared.grad = std::move(own);
    shared.foreign = false;
}

Workspace::Target Workspace::grad_target(ValueId id) {
    Slot& own = slot(id);
    if (const ValueId whole = spec(id).whole; whole >= 0) {
        if (!slot(whole).grad.defined()) slot(whole).grad = acquire(whole);
        return {channels_of(slot(whole).grad, id), std::exchange(own.part_written, true)};
    }
    check(!spec(id).summed, spec(id).name + ": its gradient is added to");
    if (!own.grad.defined()) {
        own.grad = acquire(id);
        return {own.grad, false};
    }
    own_grad(id);
    return {own.grad, true};
}

at::Tensor Workspace::grad_to_add_to(ValueId id) {
    check(spec(id).whole < 0, spec(id).name + ": the gradient of a part is written whole");
    Slot& own = slot(id);
    if (!own.grad.defined())
        own.grad = acquire(id).zero_();
    else if (!spec(id).summed)  // which is never shared: whoever holds it adds to it too
        own_grad(id);
    return own.grad;
}

at::Tensor Workspace::grad(ValueId id) {
    Slot& own = slot(id);
    check(spec(id).whole < 0, spec(id).name + ": a part's gradient belongs to the whole's reader");
    const auto& parts = parts_[static_cast<size_t>(id)];
    if (!parts.empty() && !own.grad.defined()) own.grad = acquire(id);
    for (const ValueId part : parts)
        if (!slot(part).part_written) channels_of(own.grad, part).zero_();
    if (spec(id).summed && !own.grad.defined()) own.grad = acquire(id).zero_();
    check(own.grad.defined(), spec(id).name + ": nothing wrote its gradient");
    return own.grad;
}

bool Workspace::has_grad(ValueId id) const {
    return spec(id).whole >= 0 ? slot(id).part_written : slot(id).grad.defined();
}

bool Workspace::may_share(ValueId to) const {
    return spec(to).whole < 0 && !spec(to).summed && !has_grad(to);
}

void Workspace::share_grad(ValueId from, ValueId to) {
    check(may_share(to), spec(to).name + ": its gradient cannot be shared");
    slot(to).grad = slot(from).grad;
    slot(to).foreign = slot(from).foreign;
}

void Workspace::replace_grad(ValueId id, const at::Tensor& grad) {
    const at::Tensor flat = grad.reshape({tokens_, spec(id).channels});
    if (const ValueId whole = spec(id).whole; whole >= 0) {
        const at::Tensor own = channels_of(slot(whole).grad, id);
        if (own.data_ptr() != flat.data_ptr()) own.copy_(flat);
        return;
    }
    Slot& own = slot(id);
    if (own.grad.data_ptr() == flat.data_ptr()) return;
    drop_grad(id);
    own.grad = flat;
    own.foreign = true;
}

}  // namespace speedrun
