#include "app/bench/step_shares.h"

#include <fmt/core.h>
#include <nlohmann/json.hpp>
#include <numeric>

#include "model/graph/node.h"
#include "util/text_table.h"
namespace speedrun {

const char* name_of(StepPart part) {
    static constexpr std::array<const char*, step_parts> kNames{"head",      "attention",     "mlp", "norms",
                                                                "optimizer", "communication", "rest"};
    return kNames[static_cast<size_t>(part)];
}

void StepTimer::enter(StepPart part) {
    entries_.push_back({part, Moment(device_)});
}

void StepTimer::enter(const Node& node, Direction) {
    enter(node.part());
}

PartTimes StepTimer::take() {
    PartTimes times{};
    const Moment end(device_);
    for (size_t i = 0; i < entries_.size(); ++i) {
        const Moment& next = i + 1 < entries_.size() ? entries_[i + 1].began : end;
        times[static_cast<size_t>(entries_[i].part)] += next.ms_since(entries_[i].began);
    }
    entries_.clear();
    return times;
}

void StepShares::add(const PartTimes& step, double floor) {
    for (size_t i = 0; i < ms.size(); ++i) ms[i] += step[i];
    floor_ms += floor;
}

double StepShares::total_ms() const {
    return std::accumulate(ms.begin(), ms.end(), 0.0);
}

std::string shares_text(const StepShares& shares) {
    std::string text;
    for (size_t i = 0; i < shares.ms.size(); ++i)
        text += fmt::format("{}{} {:.1f} %", text.empty() ? "" : "  ", name_of(static_cast<StepPart>(i)),
                            100 * shares.ms[i] / shares.total_ms());
    return text + fmt::format("; floor {:.1f} %", 100 * shares.floor_ms / shares.total_ms());
}

nlohmann::json shares_json(const StepShares& shares) {
    nlohmann::json parts;
    for (size_t i = 0; i < shares.ms.size(); ++i)
        parts[name_of(static_cast<StepPart>(i))] = shares.ms[i] / shares.total_ms();
    return {{"share", std::move(parts)}, {"floor_share", shares.floor_ms / shares.total_ms()}};
}

}  // namespace speedrun
