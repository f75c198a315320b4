#include "record/race/race.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

namespace speedrun {
namespace {

const RaceRun* find_run(const Race& race, const RaceEntry& entry) {
    const auto found = std::ranges::find_if(race.runs, [&](const RaceRun& run) {
        return run.rule == entry.rule && run.rung == entry.rung && run.seed == entry.seed;
    });
    return found == race.runs.end() ? nullptr : &*found;
}

// Rungs that the first seed has run.
std::set<int> tried(const Race& race, const std::string& rule) {
    std::set<int> rungs;
    for (const RaceRun& run : race.runs)
        if (run.rule == rule && run.seed == race.plan.seeds.front()) rungs.insert(run.rung);
    return rungs;
}

std::optional<int> next_rung(const Race& race, const RacePlan::Racer& racer) {
    const RacePlan& plan = race.plan;
    const std::set<int> done = tried(race, racer.rule);
    for (int rung = racer.first_rung - plan.neighbours; rung <= racer.first_rung + plan.neighbours; ++rung)
        if (!done.contains(rung)) return rung;
    if (plan.neighbours == 0) return std::nullopt;
    if (static_cast<int>(done.size()) >= 2 * plan.neighbours + 1 + plan.more) return std::nullopt;
    const int best = *best_rung(race, racer.rule);
    if (best == *done.begin()) return best - 1;
    if (best == *done.rbegin()) return best + 1;
    return std::nullopt;
}

}  // namespace

double ladder_lr(int rung) {
    const int decade = rung >= 0 ? rung / 2 : (rung - 1) / 2;
    // Parsed rather than computed, so that 0.03 is the number that is written 0.03.
    return std::stod((rung - 2 * decade == 1 ? "3e" : "1e") + std::to_string(decade));
}

int nearest_rung(double lr) {
    const int below = 2 * static_cast<int>(std::floor(std::log10(lr))) - 1;
    int nearest = below;
    for (int rung = below; rung <= below + 4; ++rung)
        if (std::abs(std::log(ladder_lr(rung) / lr)) < std::abs(std::log(ladder_lr(nearest) / lr)))
            nearest = rung;
    return nearest;
}

double RaceRun::final_loss() const {
    return diverged || validations.empty() ? std::numeric_limits<double>::infinity()
                                           : validations.back().loss;
}

std::optional<int> best_rung(const Race& race, const std::string& rule) {
    std::optional<int> best;
    double lowest = 0;
    for (const int rung : tried(race, rule)) {
        const double loss = find_run(race, {rule, rung, race.plan.seeds.front()})->final_loss();
        if (best && loss >= lowest) continue;
        best = rung;
        lowest = loss;
    }
    return best;
}

std::optional<RaceEntry> next_run(const Race& race) {
    for (const RacePlan::Racer& racer : race.plan.racers)
        if (const auto rung = next_rung(race, racer))
            return RaceEntry{racer.rule, *rung, race.plan.seeds.front()};
    for (const uint64_t seed : race.plan.seeds)
        for (const RacePlan::Racer& racer : race.plan.racers) {
            const RaceEntry entry{racer.rule, *best_rung(race, racer.rule), seed};
            if (find_run(race, entry) == nullptr) return entry;
        }
    return std::nullopt;
}

}  // namespace speedrun
