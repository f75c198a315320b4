#include "plan/graph_work.h"

#include <algorithm>
#include <string_view>

namespace speedrun {
namespace {

bool is_attention(const Node& node) {
    const std::string_view kind = node.kind();
    return kind == "attention" || kind == "dynamic_composition";
}

void add(Work& sum, const Work& more) {
    sum.flop += more.flop;
    sum.fp8_flop += more.fp8_flop;
    sum.head_flop += more.head_flop;
    sum.read += more.read;
    sum.written += more.written;
}

}  // namespace

PassShape pass_shape(const Config& config, const StepSettings& settings) {
    const int64_t document = std::min(settings.max_seq_len, settings.row_tokens);
    const auto keys = [&](int64_t length) {
        return PassShape::Keys{mean_keys(settings.window_short, length),
                               mean_keys(settings.window_long, length)};
    };
    return {.tokens = settings.row_tokens,
            .keys = keys(document),
            .paired_keys = keys(2 * document),
            .document = document,
            .item = config.numerics.activations == Dtype::bf16 ? 2 : 4};
}

Work pass_work(const Graph& graph, const PassShape& shape) {
    Work sum;
    for (const auto& node : graph.nodes()) {
        const NodeCost cost = node->cost(shape);
        add(sum, cost.forward);
        add(sum, cost.backward);
    }
    return sum;
}

TokenFlop flop_per_token(const Graph& graph, const PassShape& shape) {
    TokenFlop sum;
    for (const auto& node : graph.nodes()) {
        const NodeCost cost = node->cost(shape);
        const double flop = cost.forward.flop + cost.backward.flop;
        const double head = cost.forward.head_flop + cost.backward.head_flop;
        (is_attention(*node) ? sum.attention : sum.gemm) += flop;
        sum.head += head;
        sum.gemm += head;
    }
    const auto tokens = static_cast<double>(shape.tokens);
    return {sum.gemm / tokens, sum.head / tokens, sum.attention / tokens};
}

Scratch pass_scratch(const Graph& graph, const PassShape& shape, bool training) {
    Scratch most;
    for (const auto& node : graph.nodes()) {
        const NodeCost cost = node->cost(shape);
        most = larger(most, cost.forward_scratch);
        if (training) most = larger(most, cost.backward_scratch);
    }
    return most;
}

}  // namespace speedrun
