#include "model/workspace.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "util/error.h"

namespace speedrun {

Workspace::Workspace(std::vector<ValueSpec> specs, at::Device device)
    : specs_(std::move(specs)), slots_(specs_.size()), arena_(device) {
    int ops = 0;
    for (const ValueSpec& spec : specs_) ops = std::max(ops, spec.last_forward_use + 1);
    released_after_.resize(static_cast<size_t>(ops));
    released_always_.resize(static_cast<size_t>(ops));
    for (size_t id = 0; id < specs_.size(); ++id) {
        const ValueSpec& spec = specs_[id];
        if (spec.last_forward_use < 0) continue;
        const auto op = static_cast<size_t>(spec.last_forward_use);
        (spec.kept_for_backward ? released_after_ : released_always_)[op].push_back(static_cast<ValueId>(id));
    }
}

void Workspace::begin(int64_t tokens, bool training) {
    for (size_t id = 0; id < slots_.size(); ++id) release(static_cast<ValueId>(id));
    tokens_ = tokens;
    training_ = training;
}

std::vector<int64_t> Workspace::full_shape(ValueId id) const {
    std::vector<int64_t> shape{tokens_};
    const auto& rest = specs_[static_cast<size_t>(id)].shape;
    shape.insert(shape.end(), rest.begin(), rest.end());
    return shape;
}

const at::Tensor& Workspace::value(ValueId id) const {
    const at::Tensor& data = slots_[static_cast<size_t>(id)].data;
    check(data.defined(), "a value is read that is not there");
    return data;
}

const at::Tensor& Workspace::allocate(ValueId id) {
    Slot& slot = slots_[static_cast<size_t>(id)];
    check(!slot.data.defined(), "a value is written twice");
    slot.data = arena_.acquire(full_shape(id), specs_[static_cast<size_t>(id)].dtype);
    return slot.data;
}

void Workspace::end_forward_op(int op) {
    if (static_cast<size_t>(op) >= released_after_.size()) return;
    for (const ValueId id : released_always_[static_cast<size_t>(op)]) drop_data(id);
    if (training_) return;
    for (const ValueId id : released_after_[static_cast<size_t>(op)]) drop_data(id);
}

void Workspace::release(ValueId id) {
    drop_data(id);
    drop_grad(id);
}

void Workspace::drop_data(ValueId id) {
    Slot& slot = slots_[static_cast<size_t>(id)];
    if (slot.data.defined()) arena_.release(std::exchange(slot.data, {}));
}

void Workspace::drop_grad(ValueId id) {
    at::Tensor& grad = slots_[static_cast<size_t>(id)].grad;
    if (!grad.defined()) return;
    if (grad.use_count() == 1) arena_.release(std::exchange(grad, {}));
    grad.reset();
}

Workspace::Target Workspace::grad_target(ValueId id) {
    Slot& slot = slots_[static_cast<size_t>(id)];
    const auto dtype = specs_[static_cast<size_t>(id)].dtype;
    if (!slot.grad.defined()) {
        slot.grad = arena_.acquire(full_shape(id), dtype);
        return {slot.grad, false};
    }
    if (slot.grad.use_count() > 1) {  // shared with a value whose backward has yet to read it
        at::Tensor own = arena_.acquire(full_shape(id), dtype);
        own.copy_(slot.grad);
        slot.grad = std::move(own);
    }
    return {slot.grad, true};
}

const at::Tensor& Workspace::grad(ValueId id) const {
    const at::Tensor& grad = slots_[static_cast<size_t>(id)].grad;
    check(grad.defined(), "a gradient is read that nothing wrote");
    return grad;
}

void Workspace::share_grad(ValueId from, ValueId to) {
    check(!has_grad(to), "share_grad into a gradient that is already there");
    slots_[static_cast<size_t>(to)].grad = slots_[static_cast<size_t>(from)].grad;
}

}  // namespace speedrun
