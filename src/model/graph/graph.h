#pragma once
// The compiled plan of a model: its nodes in the order of forward, backward being the reverse, and the values
// between them. It is free of tensors: validation, plans of memory and time, and benches read it as the GPT
// runs it.
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "config/config.h"
#include "config/origins.h"
#include "model/graph/node.h"

namespace speedrun {

class HeadNode;

// A weight that training multiplies in 8-bit floats; which ones is the config's numerics.mlp.
struct Fp8Weight {
    WeightRef weight;  // [out, in], or [in, out] where `turned`
    bool turned = false;
    bool delayed = false;  // it and what it multiplies are scaled by amax that were measured before

    int64_t out() const { return weight.shape[turned ? 1 : 0]; }
    int64_t in() const { return weight.shape[turned ? 0 : 1]; }
};

class Graph {
  public:
    Graph();
    ~Graph();
    Graph(Graph&&) noexcept;
    Graph& operator=(Graph&&) noexcept;

    const std::vector<Value>& values() const { return values_; }
    const std::vector<std::unique_ptr<Node>>& nodes() const { return nodes_; }
    // The scalar coefficients of all nodes, each an expression of numbers and elements of parameters.
    const std::vector<Coefficient>& scalars() const { return scalars_; }
    // The last node, which makes logits and losses.
    const HeadNode& head() const { return *head_; }
    // In the order of forward; one for each use of a matrix.
    const std::vector<Fp8Weight>& fp8_weights() const { return fp8_weights_; }
    // "x0", "h8" and other names that the config gives to values.
    const std::map<std::string, ValueId>& names() const { return names_; }

    // Whether matrix products read the parameter, so that it has a copy in the activations' dtype; tables are
    // looked up instead.
    bool multiplies(const std::string& param) const;

  private:
    friend class GraphBuilder;
    std::vector<Value> values_;
    std::vector<std::unique_ptr<Node>> nodes_;
    std::vector<Coefficient> scalars_;
    std::vector<Fp8Weight> fp8_weights_;
    std::map<std::string, ValueId> names_;
    const HeadNode* head_ = nullptr;
};

// Follows the config's model from tokens to logits. UserError, with its path and where that was written, for
// a name that means nothing there, sizes that do not fit each other, and what nothing uses.
Graph compile(const Config& config, const Origins& origins = {});

}  // namespace speedrun
