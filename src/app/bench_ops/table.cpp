#include "app/bench_ops/table.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "record/text_table.h"

namespace speedrun {
namespace {

using Json = nlohmann::ordered_json;

std::string milliseconds(double ms) {
    return format_text(ms < 1 ? "%.4f" : ms < 100 ? "%.2f" : "%.1f", ms);
}

std::string percent(double floor, double ms) {
    return format_text("%.0f %%", 100 * floor / ms);
}

// 12, 0.5; those of parts in brackets.
std::string count(const Op& op) {
    const std::string number = format_text("%g", op.per_step);
    return op.within.empty() ? number : "(" + number + ")";
}

}  // namespace

double floor_ms(const Op& op, const MachineRates& rates) {
    return 1000 * std::max(op.flop / rates.flops, op.bytes / rates.bandwidth);
}

StepSum sum_of_step(std::span<const TimedOp> ops, const MachineRates& rates) {
    StepSum sum;
    for (const auto& [op, ms] : ops) {
        if (!op.within.empty()) continue;
        sum.ms += op.per_step * ms;
        sum.floor_ms += op.per_step * floor_ms(op, rates);
    }
    return sum;
}

std::string ops_text(std::span<const TimedOp> ops, const MachineRates& rates) {
    TextTable table{{"op", "shape", "a step", "ms", "floor, ms", "of the floor", "ms a step"}};
    for (const auto& [op, ms] : ops) {
        const double floor = floor_ms(op, rates);
        table.push_back({op.name, op.shape, count(op), milliseconds(ms), milliseconds(floor),
                         percent(floor, ms), op.within.empty() ? milliseconds(op.per_step * ms) : ""});
    }
    const StepSum sum = sum_of_step(ops, rates);
    if (sum.ms > 0)
        table.push_back({"all of a step", "", "", "", milliseconds(sum.floor_ms),
                         percent(sum.floor_ms, sum.ms), milliseconds(sum.ms)});
    return plain_table(table);
}

Json ops_json(std::span<const TimedOp> ops, const MachineRates& rates) {
    Json rows = Json::array();
    for (const auto& [op, ms] : ops) {
        Json row{{"op", op.name},   {"shape", op.shape}, {"per_step", op.per_step},        {"ms", ms},
                 {"flop", op.flop}, {"bytes", op.bytes}, {"floor_ms", floor_ms(op, rates)}};
        if (!op.within.empty()) row["within"] = op.within;
        rows.push_back(std::move(row));
    }
    const StepSum sum = sum_of_step(ops, rates);
    return {{"ops", std::move(rows)}, {"step", {{"ms", sum.ms}, {"floor_ms", sum.floor_ms}}}};
}

}  // namespace speedrun
