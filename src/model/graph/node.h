#pragma once
// One step of a model's forward pass, with its backward: what a graph is a list of. No tensor appears here;
// what a node computes on is the Pass, which only its own file knows (model/nodes).
#include <cstdint>
#include <string>
#include <vector>

#include "config/coefficient.h"
#include "model/graph/value.h"
#include "model/step_probe.h"

namespace speedrun {

struct Pass;

// A part of a parameter that a node reads, and whose gradient its backward adds to.
struct WeightUse {
    WeightRef weight;
    enum class Kind : uint8_t {
        multiplied,  // by matrix products, in the activations' dtype
        looked_up,   // by rows, in its own
        element      // as numbers
    } kind = Kind::multiplied;
};

// What a pass over T tokens is like, for costs.
struct PassShape {
    int64_t tokens = 0;
    struct Keys {
        double short_window = 0, long_window = 0;
    };
    Keys keys, paired_keys;  // that a query of an attention node sees on average, by its window
    int64_t document = 1;    // tokens of a document
    int64_t item = 2;        // bytes of an activation
};

// Keys that a query of a document of `length` tokens sees on average: itself and up to `window` before it.
double mean_keys(int64_t window, int64_t length);

// What forward or backward must at least do, whatever computes it.
struct Work {
    double flop = 0;               // of matrix products and attention but the head's
    double fp8_flop = 0;           // that part of it which may run in FP8
    double head_flop = 0;          // of the head's products, which may run in FP8
    double read = 0, written = 0;  // bytes
    double bytes() const { return read + written; }
};

// Bytes beside values and gradients that operators take. Those for CPUs: two packed operands and others, kept
// for the next call that needs as much, and what passes with the call. Those for GPUs: in all.
struct Scratch {
    int64_t packed_left = 0, packed_right = 0, kept = 0, passing = 0, gpu = 0;

    int64_t cpu() const { return packed_left + packed_right + kept + passing; }
};
Scratch larger(const Scratch& a, const Scratch& b);  // of each kind

struct NodeCost {
    Work forward, backward;
    Scratch forward_scratch = {}, backward_scratch = {};
};

class Node {
  public:
    // `name`: where the config says it, and what it is there: "model.layers[3].attn.q_rotary".
    Node(std::string name, const char* kind, StepPart part)
        : name_(std::move(name)), kind_(kind), part_(part) {}
    virtual ~Node() = default;
    Node(const Node&) = delete;
    Node& operator=(const Node&) = delete;

    const std::string& name() const { return name_; }
    // What nodes that do the same have in common: "linear", "mix".
    const char* kind() const { return kind_; }
    // What its time counts as.
    StepPart part() const { return part_; }
    const std::vector<ValueId>& inputs() const { return inputs_; }
    // The values that it writes; their gradients are there when its backward runs, and go after it.
    const std::vector<ValueId>& outputs() const { return outputs_; }
    const std::vector<WeightUse>& weights() const { return weights_; }

    virtual NodeCost cost(const PassShape& shape) const = 0;
    // Sizes that distinguish nodes of one kind: "768x3072".
    virtual std::string shape() const = 0;

    virtual void forward(Pass& pass) const = 0;
    virtual void backward(Pass& pass) const = 0;

  protected:
    friend class GraphBuilder;
    std::vector<ValueId> inputs_, outputs_;
    std::vector<WeightUse> weights_;

  private:
    std::string name_;
    const char* kind_;
    StepPart part_;
};

}  // namespace speedrun
