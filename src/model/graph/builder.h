#pragma once
// What nodes are built with: it declares their values, notes how long each must live, and turns coefficients
// into scalars and values of gates.
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "config/config.h"
#include "config/origins.h"
#include "model/graph/graph.h"

namespace speedrun {

// The part of a coefficient that differs from token to token: offset + value[t, first + column], each column
// for as many channels of what is multiplied. value -1: there is none.
struct TokenFactor {
    ValueId value = -1;
    int64_t first = 0, columns = 1;
    double offset = 0;
};

// scalar * factor
struct TermCoefficient {
    Coefficient scalar;  // of numbers and elements alone
    TokenFactor factor;

    bool is_one() const { return scalar == Coefficient{} && factor.value < 0; }
};

// What the names in coefficients and mixes mean at one place of the model.
using Sources = std::map<std::string, ValueId>;

class GraphBuilder {
  public:
    // How a node uses a value.
    enum class Read : uint8_t { forward, forward_and_backward };

    GraphBuilder(const Config& config, const Report& report) : config_(config), report_(report) {}

    const ModelConfig& model() const { return config_.model; }
    const Config& config() const { return config_; }
    const Report& report() const { return report_; }
    const Value& value(ValueId id) const { return graph_.values_[static_cast<size_t>(id)]; }

    // Bytes of an element of a weight as it is used, and of its gradient.
    int64_t used_item(const WeightUse& use) const;
    int64_t grad_item(const WeightRef& weight) const;

    ValueId declare(Node& node, const std::string& name, int64_t channels,
                    Value::Element element = Value::Element::activation);
    ValueId declare_part(const std::string& name, ValueId whole, int64_t first, int64_t channels);
    // Readers of the value have gradients of some of its channels, which are added up.
    void sum_gradients(ValueId id);
    // `node` is being built, or was.
    void read(Node& node, ValueId id, Read how);
    // All of a parameter that belongs to no layer; UserError at `path` where there is none.
    WeightRef whole(const std::string& param, const std::string& path) const;
    // The parameter must be there and `weight` of this shape; `path` is where the config names it.
    void use(Node& node, const WeightRef& weight, WeightUse::Kind kind, const std::vector<int64_t>& shape,
             const std::string& path);

    // The weight has a copy in 8-bit floats: its index among Graph::fp8_weights().
    int64_t in_fp8(Fp8Weight weight);

    // Appends a node made of the builder and `arguments`.
    template <class N, class... A>
    N& add(A&&... arguments) {
        auto node = std::make_unique<N>(*this, std::forward<A>(arguments)...);
        N& added = *node;
        graph_.nodes_.push_back(std::move(node));
        return added;
    }

    // The coefficients' places among the graph's scalars, one after the other: the first. Elements they read
    // are noted as the node's weights.
    int64_t add_scalars(Node& node, std::span<const Coefficient> coefficients);
    bool trainable(int64_t scalar) const;

    // Splits a coefficient; gates that it needs become nodes. UserError at `path` for what no node computes.
    TermCoefficient term(const Coefficient& coefficient, const Sources& sources, const std::string& path);
    // A coefficient that must be `count` outputs of a net, one for each head; UserError at `path` otherwise.
    TokenFactor outputs_of_net(const Coefficient& coefficient, int64_t count, const std::string& path);
    // The net's outputs, which coefficients may name from now on.
    void evaluated(const std::string& net, ValueId outputs) { nets_[net] = outputs; }
    // rms_norm of a value, computed once however many read it.
    ValueId normed(ValueId value, const std::string& name);
    // Of the value's mix where one made it, which then norms in the same pass.
    void norm_by(ValueId value, class MixNode& mix) { mixes_[value] = &mix; }

    void name(const std::string& name, ValueId id) { graph_.names_[name] = id; }
    // After the last node; checks that every parameter is used.
    Graph finish(const HeadNode& head);

  private:
    ValueId gate(const Coefficient& gate, Coefficient::Kind activation, const Sources& sources,
                 const std::string& path);
    TokenFactor output_of_net(const Coefficient& output, double offset, const std::string& path);
    TokenFactor token_factor(const Coefficient& factor, const Sources& sources, const std::string& path);
    void check_used() const;

    const Config& config_;
    const Report& report_;
    Graph graph_;
    std::map<ValueId, class MixNode*> mixes_;
    std::map<ValueId, ValueId> normed_;
    std::map<std::string, ValueId> nets_;
    std::set<std::string> used_nets_;
    using GateKey =
        std::tuple<std::string, int64_t, std::vector<std::pair<ValueId, int64_t>>, Coefficient::Kind>;
    std::map<GateKey, ValueId> gates_;
};

// The elements that an expression reads.
void collect_elements(const Coefficient& coefficient, std::vector<WeightRef>& found);

}  // namespace speedrun
