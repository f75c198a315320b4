#include "app/bench/ops/table.h"

#include <fmt/core.h>
#include <algorithm>

#include "util/json_document.h"
#include "util/text_table.h"

namespace speedrun {
namespace {

std::string milliseconds(double ms) {
    return fmt::format("{:.{}f}", ms, ms < 1 ? 4 : ms < 100 ? 2 : 1);
}

std::string percent(double floor, double ms) {
    return fmt::format("{:.0f} %", 100 * floor / ms);
}

// 12, 0.5; those of parts in brackets.
std::string count(const Op& op) {
    const std::string number = fmt::format("{:g}", op.per_step);
    return op.within.empty() ? number : "(" + number + ")";
}

bool on_gpu(std::span<const TimedOp> ops) {
    return std::ranges::any_of(ops, [](const TimedOp& op) { return op.kernels != 0; });
}

// A last column: of a call, and below of a step.
void add_kernels(TextTable& table, std::span<const TimedOp> ops, const StepSum& sum) {
    table.front().push_back("kernels");
    for (size_t i = 0; i < ops.size(); ++i)
        table[i + 1].push_back(ops[i].kernels ? std::to_string(*ops[i].kernels) : "?");
    if (table.size() > ops.size() + 1) table.back().push_back(fmt::format("{:.0f}", sum.kernels));
}

}  // namespace

double floor_ms(const Op& op, const MachineRates& rates) {
    return 1000 * std::max(op.flop / rates.flops, op.bytes / rates.bandwidth);
}

StepSum sum_of_step(std::span<const TimedOp> ops, const MachineRates& rates) {
    StepSum sum;
    for (const auto& [op, ms, kernels] : ops) {
        if (!op.within.empty()) continue;
        sum.ms += op.per_step * ms;
        sum.kernels += op.per_step * static_cast<double>(kernels.value_or(0));
        sum.floor_ms += op.per_step * floor_ms(op, rates);
    }
    return sum;
}

std::string ops_text(std::span<const TimedOp> ops, const MachineRates& rates) {
    TextTable table{{"op", "shape", "a step", "ms", "floor, ms", "of the floor", "ms a step"}};
    for (const auto& [op, ms, kernels] : ops) {
        const double floor = floor_ms(op, rates);
        table.push_back({op.name, op.shape, count(op), milliseconds(ms), milliseconds(floor),
                         percent(floor, ms), op.within.empty() ? milliseconds(op.per_step * ms) : ""});
    }
    const StepSum sum = sum_of_step(ops, rates);
    if (sum.ms > 0)
        table.push_back({"all of a step", "", "", "", milliseconds(sum.floor_ms),
                         percent(sum.floor_ms, sum.ms), milliseconds(sum.ms)});
    if (on_gpu(ops)) add_kernels(table, ops, sum);
    return plain_table(table);
}

Json ops_json(std::span<const TimedOp> ops, const MachineRates& rates) {
    Json rows = Json::array();
    for (const auto& [op, ms, kernels] : ops) {
        Json row{{"op", op.name},   {"shape", op.shape}, {"per_step", op.per_step},        {"ms", ms},
                 {"flop", op.flop}, {"bytes", op.bytes}, {"floor_ms", floor_ms(op, rates)}};
        if (!op.within.empty()) row["within"] = op.within;
        if (kernels.value_or(0) > 0) row["kernels"] = *kernels;
        rows.push_back(std::move(row));
    }
    const StepSum sum = sum_of_step(ops, rates);
    Json step{{"ms", sum.ms}, {"floor_ms", sum.floor_ms}};
    if (sum.kernels > 0) step["kernels"] = sum.kernels;
    return {{"ops", std::move(rows)}, {"step", std::move(step)}};
}

}  // namespace speedrun
