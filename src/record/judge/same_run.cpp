#include "record/judge/same_run.h"

#include <algorithm>
#include <span>

namespace speedrun {
namespace {

using Validations = std::span<const Validation>;

// Before the first step all runs are alike.
Validations after_start(const Run& run) {
    const auto first = std::ranges::find_if(run.validations, [](const Validation& v) { return v.step > 0; });
    return {first, run.validations.end()};
}

// Whether each of `fewer` is one of `more`, of the same time as well where `timed` says so.
bool holds(Validations more, Validations fewer, bool timed) {
    return std::ranges::all_of(fewer, [&](const Validation& v) {
        const auto found = std::ranges::lower_bound(more, v.step, {}, &Validation::step);
        return found != more.end() && found->step == v.step && found->loss == v.loss &&
               (!timed || found->train_time_ms == v.train_time_ms);
    });
}

}  // namespace

bool same_run(const Run& a, const Run& b) {
    if (a.fingerprint == b.fingerprint) return true;
    Validations fewer = after_start(a), more = after_start(b);
    if (fewer.size() > more.size()) std::swap(fewer, more);
    if (fewer.size() >= kTellingValidations) return holds(more, fewer, false);
    // A single one would be no proof: two runs may have equal losses after equal times.
    return !fewer.empty() && more.size() > 1 && holds(more, fewer, true);
}

}  // namespace speedrun
