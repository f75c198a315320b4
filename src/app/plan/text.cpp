#include <fmt/core.h>
#include <algorithm>
#include <array>
#include <string>

#include "app/plan/run_plan.h"
#include "optim/rule.h"
#include "plan/graph_work.h"
#include "util/text_table.h"

namespace speedrun {
namespace {

// 1234567 as "1,234,567".
std::string grouped(int64_t n) {
    std::string text = std::to_string(n);
    for (int64_t at = std::ssize(text) - 3; at > 0; at -= 3) text.insert(static_cast<size_t>(at), 1, ',');
    return text;
}

std::string mib(int64_t bytes) {
    return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1 << 20));
}

std::string gib(int64_t bytes) {
    return fmt::format("{:.2f} GiB", static_cast<double>(bytes) / (1 << 30));
}

std::string ms(double seconds) {
    return fmt::format("{:.{}f}", 1e3 * seconds, seconds < 0.01 ? 3 : 1);
}

std::string head_text(const RunPlan& plan) {
    const int64_t ranks = plan.ownership.world_size;
    const int64_t nodes = (ranks + plan.ranks_per_node - 1) / plan.ranks_per_node;
    const Machine& m = plan.machine;
    std::string text = plan.file + " on " + grouped(ranks) + (ranks == 1 ? " rank, " : " ranks, ") +
                       grouped(nodes) + (nodes == 1 ? " node\n" : " nodes\n");
    text += "a step: " + grouped(largest_step(plan.config, false).batch_tokens) +
            " tokens = " + grouped(ranks) + " x " + grouped(plan.accumulation) + " micro-batches of " +
            grouped(largest_step(plan.config, false).row_tokens) + "\n\n";
    text += "assumed of " + m.name + " (" + m.what + "): " + fmt::format("{:.4g}", m.bf16_flops / 1e12) +
            " TFLOP/s bf16, " +
            (m.fp8_flops > 0 ? fmt::format("{:.4g}", m.fp8_flops / 1e12) + " TFLOP/s fp8" : "no fp8") + ", " +
            fmt::format("memory {:.4g} GB/s, inside a node {:.4g} GB/s, between nodes {:.4g} GB/s a rank, ",
                        m.memory_bandwidth / 1e9, m.link_bandwidth / 1e9, m.network_bandwidth / 1e9) +
            gib(m.memory_bytes) + "; none of it measured here\n";
    return text;
}

std::string pieces_text(const std::vector<Piece>& pieces) {
    std::string text;
    for (const Piece& piece : pieces)
        text += (text.empty() ? "" : " + ") + piece.param + "[" + std::to_string(piece.begin) + ":" +
                std::to_string(piece.end) + "]";
    return text.empty() ? "nothing" : text;
}

std::string owners_text(const RunPlan& plan) {
    constexpr int64_t kShown = 16;
    const Ownership& own = plan.ownership;
    const auto unit_bytes = unit_state_bytes(plan.config);
    std::string text = "\nwho owns what, in the order of reductions; [n]: the order of updates and gathers\n";
    for (size_t i = 0; i < own.buckets.size(); ++i) {
        const Bucket& bucket = own.buckets[i];
        const auto work = std::ranges::find(own.work_order, i) - own.work_order.begin();
        const bool matrices = bucket.rule == OptimParamConfig::Rule::matrix;
        text += "  [" + std::to_string(work + 1) + "] " + bucket.name + ": " +
                rule_name(plan.config.optimizer, bucket.rule) + ", " + grouped(bucket.total_units()) +
                (matrices ? " entries of " : " rows of ") + grouped(bucket.unit_elements) + ", state " +
                mib(state_bytes(bucket, unit_bytes)) + "\n";
        TextTable rows;
        for (int64_t rank = 0; rank < std::min(own.world_size, kShown); ++rank)
            rows.push_back({"      rank " + std::to_string(rank), pieces_text(bucket.owned_by(rank))});
        for (const auto& row : rows) text += row[0] + "  " + row[1] + "\n";
        const auto owners = std::ranges::count_if(bucket.units, [](int64_t units) { return units > 0; });
        if (own.world_size > kShown)
            text += "      ... " + grouped(owners) + " of " + grouped(own.world_size) +
                    " ranks own a part (all of them: --json)\n";
    }
    return text;
}

std::string memory_text(const RunPlan& plan) {
    const size_t rank = fullest_rank(plan);
    const RankMemory& m = plan.memory[rank];
    const auto [least, most] = std::ranges::minmax_element(plan.memory, {}, &RankMemory::optimizer_state);
    std::string text = "\nmemory of rank " + std::to_string(rank) + ", which needs the most\n";
    const TextTable rows{{"  weights: masters", mib(m.masters)},
                         {"  weights: copies that matmuls read", mib(m.copies)},
                         {"  gradients", mib(m.gradients)},
                         {"  optimizer state (least " + mib(least->optimizer_state) + ", most " +
                              mib(most->optimizer_state) + ")",
                          mib(m.optimizer_state)},
                         {"  activations and their gradients", mib(m.activations)},
                         {"  rotary tables", mib(m.tables)},
                         {"  kept by operators", mib(m.operators)},
                         {"  temporaries of an update", mib(m.optimizer_work)},
                         {"  weights before the warm-up", mib(m.warm_up)},
                         {"  batches", mib(m.batches)},
                         {"  staging of collectives", mib(m.communication)},
                         {"  copy of a checkpoint", mib(m.checkpoint)},
                         {"  allocator, threads, generated code", mib(m.program)},
                         {"  peak", mib(m.peak())},
                         {"  with context and libraries (assumed)", mib(used_memory(plan))}};
    return text + plain_table(rows);
}

std::string fit_text(const RunPlan& plan) {
    const std::string memory = gib(plan.machine.memory_bytes);
    if (!plan.fewest_rows)
        return "rows that fit " + memory +
               ": none, not even of one token (the validation's micro-batch is of " +
               grouped(plan.config.data.val_micro_batch_tokens) + ": data.val_micro_batch_tokens)\n";
    const int64_t rows = *plan.fewest_rows;
    return "fewest rows that fit " + memory + ": data.rows = " + grouped(rows) + ", " +
           grouped(largest_step(plan.config, false).batch_tokens / rows) + " tokens each, grad_accum_steps " +
           grouped(rows / plan.ownership.world_size) + "\n";
}

std::string traffic_text(const RunPlan& plan) {
    const Ownership& own = plan.ownership;
    if (own.world_size == 1) return "\nbytes sent: none, one rank\n";
    TextTable rows{{"collectives of", "gradients", "sent a rank", "weights", "sent a rank"}};
    const auto range = [](const std::vector<int64_t>& sent) {
        const auto [least, most] = std::ranges::minmax(sent);
        return least == most ? grouped(most) : grouped(least) + " - " + grouped(most);
    };
    bool bounded = false;
    for (size_t i = 0; i < plan.traffic.size(); ++i) {
        const BucketTraffic& t = plan.traffic[i];
        bounded = bounded || t.at_most;
        rows.push_back({"  " + own.buckets[i].name + (t.at_most ? "*" : ""), grouped(t.gradient_bytes),
                        range(t.reduce_sent), grouped(t.value_bytes), range(t.gather_sent)});
    }
    std::string text = "\nbytes of collectives\n" + plain_table(rows);
    if (bounded)
        text +=
            "* gradients at most: of the rows that a rank looks up, were no two of its tokens to share one\n";
    text += "bytes that a rank sends in a step\n";
    TextTable steps{{"", "mean", "most", "least possible", "mean / least"}};
    for (const bool adam : {false, true}) {
        const StepSettings settings = largest_step(plan.config, adam);
        int64_t sum = 0, most = 0;
        for (int64_t rank = 0; rank < own.world_size; ++rank) {
            const int64_t sent = step_traffic(plan.config, own, plan.traffic, settings, rank).sum();
            sum += sent;
            most = std::max(most, sent);
        }
        const double mean = static_cast<double>(sum) / static_cast<double>(own.world_size);
        const double least = least_sent(own, plan.traffic, adam);
        steps.push_back({adam ? "  with Adam" : "  without Adam", grouped(static_cast<int64_t>(mean)),
                         grouped(most), grouped(static_cast<int64_t>(least)),
                         fmt::format("{:.4f}", mean / least)});
    }
    return text + plain_table(steps);
}

std::string floor_text(const RunPlan& plan) {
    const StepSettings settings = largest_step(plan.config, true);
    const TokenFlop flop = flop_per_token(plan.graph, pass_shape(plan.config, settings));
    const auto tokens = static_cast<double>(settings.batch_tokens);
    std::string text =
        "\nFLOP\n" +
        fmt::format(
            "  a token: {:.1f} M in matrix products ({:.1f} M of them in the head), {:.1f} M in "
            "attention (window {})\n",
            flop.gemm / 1e6, flop.head / 1e6, flop.attention / 1e6, settings.window_long) +
        fmt::format("  a step:  {:.2f} T, and {:.2f} T of orthogonalization on the busiest rank\n",
                    tokens * (flop.gemm + flop.attention) / 1e12,
                    optimizer_flop(plan.config, plan.ownership) / 1e12);
    text += "\nfloor of a step, ms\n";
    TextTable rows{{"", "forward + backward", "update", "memory", "network: bandwidth", "latency", "floor",
                    "without overlap", "limit"}};
    const auto add = [&](const char* name, const StepFloor& f) {
        rows.push_back({name, ms(f.forward_backward), ms(f.optimizer), ms(f.memory), ms(f.bandwidth),
                        ms(f.latency), ms(f.overlapped()), ms(f.in_turn()), f.limit()});
    };
    add("  without Adam", plan.without_adam);
    add("  with Adam", plan.with_adam);
    return text + plain_table(rows);
}

std::string scaling_table_text(const RunPlan& plan) {
    TextTable rows{{"ranks", "nodes", "row", "accumulation", "compute", "memory", "network", "floor, ms",
                    "efficiency", "limit"}};
    for (const ScalingRow& row : plan.scaling)
        rows.push_back(
            {grouped(row.ranks), grouped((row.ranks + plan.ranks_per_node - 1) / plan.ranks_per_node),
             grouped(row.row_tokens) + (row.split ? "*" : ""), grouped(row.accumulation),
             ms(row.floor.compute()), ms(row.floor.memory), ms(row.floor.network()),
             ms(row.floor.overlapped()), fmt::format("{:.0f} %", 100 * row.efficiency), row.floor.limit()});
    return "\nscaling, " + grouped(plan.ranks_per_node) + " ranks a node\n" + plain_table(rows) +
           (plan.scaling.back().split ? "* shorter than the config's\n" : "") +
           scaling_text(plan.config, plan.scaling, plan.machine, plan.ranks_per_node) + "\n";
}

std::string price_text(const RunPlan& plan) {
    if (!plan.price) return "";
    const Price& price = *plan.price;
    return fmt::format(
        "\nprice at ${:.2f} an hour of a GPU, all steps at their floors: a run of {:.1f} s at least ${:.2f}, "
        "an "
        "attempt of {} runs ${:.2f}\n"
        "start, warm-up and validations cost more, and no run reaches its floor\n",
        price.gpu_hour, price.run_seconds, price.run, price.runs, price.attempt());
}

}  // namespace

std::string plan_text(const RunPlan& plan) {
    return head_text(plan) + owners_text(plan) + memory_text(plan) + fit_text(plan) + traffic_text(plan) +
           floor_text(plan) + scaling_table_text(plan) + price_text(plan);
}

}  // namespace speedrun
