#include "record/log/stalls.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <span>

namespace speedrun {
namespace {

constexpr size_t kNeighbours = 16;    // on either side
constexpr size_t kLeastPeriodic = 4;  // as many slow steps at equal distances make a period

// Reorders `values`. NaN for none.
double median(std::span<double> values) {
    if (values.empty()) return kNotLogged;
    const size_t middle = values.size() / 2;
    std::ranges::nth_element(values, values.begin() + static_cast<std::ptrdiff_t>(middle));
    const double upper = values[middle];
    if (values.size() % 2 == 1) return upper;
    return (*std::max_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(middle)) + upper) /
           2;
}

double median_between(std::span<const StepTime> times, size_t from, size_t to) {
    std::array<double, kNeighbours> values{};
    for (size_t i = from; i < to; ++i) values[i - from] = times[i].ms;
    return median(std::span(values).first(to - from));
}

// fmax leaves out the side that has no steps.
double local_median(std::span<const StepTime> times, size_t at) {
    return std::fmax(median_between(times, at - std::min(at, kNeighbours), at),
                     median_between(times, at + 1, std::min(at + 1 + kNeighbours, times.size())));
}

std::vector<Stall> slow_steps(std::span<const StepTime> times) {
    std::vector<Stall> slow;
    for (size_t i = 0; i < times.size(); ++i) {
        const double usual = local_median(times, i);
        if (times[i].ms > kStallFactor * usual) slow.push_back({times[i].step, times[i].ms, usual});
    }
    return slow;
}

// The commonest distance of one slow step from the next.
int64_t commonest_distance(std::span<const Stall> slow) {
    std::map<int64_t, int> distances;
    for (size_t i = 1; i < slow.size(); ++i) ++distances[slow[i].step - slow[i - 1].step];
    return std::ranges::max_element(distances, {}, [](const auto& d) { return d.second; })->first;
}

int64_t commonest_phase(std::span<const Stall> slow, int64_t period) {
    std::map<int64_t, int> phases;
    for (const Stall& stall : slow) ++phases[stall.step % period];
    return std::ranges::max_element(phases, {}, [](const auto& p) { return p.second; })->first;
}

// Moves the periodic ones of `slow` out, if there are any: at least kLeastPeriodic slow steps at equal
// distances, and slow in three of four such places from the first of them to the end of the run.
void part_periodic(std::vector<Stall> slow, int64_t last_step, Stalls& stalls) {
    stalls.hiccups = std::move(slow);
    if (stalls.hiccups.size() < kLeastPeriodic) return;
    const int64_t period = commonest_distance(stalls.hiccups);
    if (period < 2) return;
    const int64_t phase = commonest_phase(stalls.hiccups, period);
    const auto split = std::ranges::stable_partition(
        stalls.hiccups, [&](const Stall& s) { return s.step % period != phase; });
    const int64_t places = (last_step - split.front().step) / period + 1;
    if (split.size() >= kLeastPeriodic && 4 * static_cast<int64_t>(split.size()) >= 3 * places) {
        stalls.period = period;
        stalls.periodic.assign(split.begin(), split.end());
        stalls.hiccups.erase(split.begin(), split.end());
    } else {
        std::ranges::sort(stalls.hiccups, {}, &Stall::step);
    }
}

double lost(std::span<const Stall> stalls) {
    double sum = 0;
    for (const Stall& stall : stalls) sum += stall.lost_ms();
    return sum;
}

double final_time_ms(const Run& run) {
    if (run.last_validation && std::isfinite(run.last_validation->train_time_ms))
        return run.last_validation->train_time_ms;
    return run.clock.empty() ? kNotLogged : run.clock.back().train_time_ms;
}

}  // namespace

std::vector<StepTime> step_times(const Run& run) {
    std::vector<StepTime> times;
    ClockReading before;
    for (const ClockReading& now : run.clock) {
        const double ms = now.train_time_ms - before.train_time_ms;
        if (ms < 0) {
            times.clear();
        } else if (!now.validation && now.step == before.step + 1) {
            times.push_back({now.step, ms});
        }
        before = now;
    }
    return times;
}

Stalls find_stalls(const Run& run) {
    Stalls stalls;
    const auto times = step_times(run);
    part_periodic(slow_steps(times), run.final_step, stalls);
    stalls.lost_ms = lost(stalls.hiccups);
    stalls.periodic_ms = lost(stalls.periodic);
    std::vector<double> all;
    for (const StepTime& time : times) all.push_back(time.ms);
    stalls.median_step_ms = median(all);
    stalls.train_time_ms = final_time_ms(run);
    stalls.time_without_ms = stalls.train_time_ms - stalls.lost_ms;
    return stalls;
}

}  // namespace speedrun
