#pragma once
#include <ATen/core/Tensor.h>

#include <utility>
#include <vector>

#include "model/arena.h"

namespace speedrun {

// An activation: written once by the op that produces it, read by later ops and in their backward.
using ValueId = int;

// What is known of a value before it exists.
struct ValueSpec {
    std::vector<int64_t> shape;  // per token: [d_model], [n_head, head_dim], or [] for one number a token
    at::ScalarType dtype = at::kFloat;
    int last_forward_use = -1;      // index of the last op that reads it in forward
    bool kept_for_backward = true;  // false: may be released after its last forward use
};

// The values and gradients of one pass over T tokens.
class Workspace {
  public:
    Workspace(std::vector<ValueSpec> specs, at::Device device);

    void reserve(int64_t bytes) { arena_.reserve(bytes); }
    void begin(int64_t tokens, bool training);  // forgets everything of the pass before
    const at::Tensor& value(ValueId id) const;
    const at::Tensor& allocate(ValueId id);
    void end_forward_op(int op);  // releases values nobody will read again
    void release(ValueId id);     // value and gradient, once the producer's backward has run

    // Where an op's backward adds its share of a value's gradient.
    struct Target {
        at::Tensor tensor;
        bool accumulate;  // false: nothing is there yet, overwrite
    };
    Target grad_target(ValueId id);
    const at::Tensor& grad(ValueId id) const;
    // Lets `to` start with the very tensor that holds `from`'s gradient. It is copied before anybody adds to
    // a shared one.
    void share_grad(ValueId from, ValueId to);
    bool has_grad(ValueId id) const { return slots_[static_cast<size_t>(id)].grad.defined(); }

    at::Tensor scratch(const std::vector<int64_t>& shape, at::ScalarType dtype) {
        return arena_.acquire(shape, dtype);
    }
    void release_scratch(at::Tensor tensor) { arena_.release(std::move(tensor)); }
    int64_t tokens() const { return tokens_; }
    bool training() const { return training_; }
    int64_t allocated_bytes() const { return arena_.allocated_bytes(); }

  private:
    struct Slot {
        at::Tensor data, grad;
    };
    std::vector<int64_t> full_shape(ValueId id) const;
    void drop_data(ValueId id);
    void drop_grad(ValueId id);

    std::vector<ValueSpec> specs_;
    std::vector<Slot> slots_;
    std::vector<std::vector<ValueId>>
        released_after_;  // [op] values that a forward without backward can drop
    std::vector<std::vector<ValueId>> released_always_;  // [op] and those that training can drop too
    Arena arena_;
    int64_t tokens_ = 0;
    bool training_ = false;
};

}  // namespace speedrun
