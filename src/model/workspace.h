#pragma once
#include <ATen/core/Tensor.h>

#include <span>
#include <utility>
#include <vector>

#include "model/arena.h"
#include "model/graph/value.h"

namespace speedrun {

// The values and gradients of one pass over T tokens, each [T, channels].
class Workspace {
  public:
    Workspace(std::vector<Value> values, at::ScalarType activations, at::Device device);

    void reserve(int64_t bytes) { arena_.reserve(bytes); }
    void begin(int64_t tokens, bool training);  // forgets everything of the pass before
    at::Tensor value(ValueId id) const;
    const at::Tensor& allocate(ValueId id);  // not of a part
    void end_forward_node(int node);         // releases values nobody will read again
    void release(ValueId id);                // value and gradient, once the producer's backward has run

    // Where a node's backward adds its share of a value's gradient.
    struct Target {
        at::Tensor tensor;
        bool accumulate;  // false: nothing is there yet, overwrite
    };
    Target grad_target(ValueId id);
    // The same where a reader has a gradient for some channels only: zeros where nothing was there.
    at::Tensor grad_to_add_to(ValueId id);
    // Of a part nobody wrote, zeros.
    at::Tensor grad(ValueId id);
    bool has_grad(ValueId id) const;
    // Lets `to` start with the very tensor that holds `from`'s gradient, where it may. It is copied before
    // anybody adds to a shared one.
    bool may_share(ValueId to) const;
    void share_grad(ValueId from, ValueId to);
    // After grad_target: the gradient lies in `grad`, which may be memory of others.
    void replace_grad(ValueId id, const at::Tensor& grad);

    at::Tensor scratch(const std::vector<int64_t>& shape, at::ScalarType dtype) {
        return arena_.acquire(shape, dtype);
    }
    void release_scratch(at::Tensor tensor) { arena_.release(std::move(tensor)); }
    int64_t tokens() const { return tokens_; }
    bool training() const { return training_; }
    at::ScalarType activations() const { return activations_; }
    int64_t allocated_bytes() const { return arena_.allocated_bytes(); }

  private:
    struct Slot {
        at::Tensor data, grad;
        bool part_written = false;  // of a part: its channels of the whole's gradient
        bool foreign = false;       // the gradient is no memory of the arena
    };
    const Value& spec(ValueId id) const { return values_[static_cast<size_t>(id)]; }
    Slot& slot(ValueId id) { return slots_[static_cast<size_t>(id)]; }
    const Slot& slot(ValueId id) const { return slots_[static_cast<size_t>(id)]; }
    at::Tensor channels_of(const at::Tensor& whole, ValueId part) const;
    at::Tensor acquire(ValueId id);
    void own_grad(ValueId id);
    void drop_data(ValueId id);
    void drop_grad(ValueId id);

    std::vector<Value> values_;
    at::ScalarType activations_;
    std::vector<Slot> slots_;
    std::vector<std::vector<ValueId>> parts_;  // of each value
    // [node] values that a forward without backward can drop, and those that training can drop too.
    std::vector<std::vector<ValueId>> released_after_, released_always_;
    Arena arena_;
    int64_t tokens_ = 0;
    bool training_ = false;
};

}  // namespace speedrun
