#include "record/judge/comparison.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "util/error.h"
#include "util/text.h"

namespace speedrun {
namespace {

std::vector<double> step_times_ms(const RunGroup& group) {
    std::vector<double> times = group.final_times_ms();
    for (double& time : times) time /= static_cast<double>(group.steps);
    return times;
}

// In the order of their start, by name where that is not known.
void order_by_start(RunGroup& group) {
    std::ranges::stable_sort(group.runs, {},
                             [](const GroupRun& r) { return r.run.header.started.value_or(0); });
}

Side side_of(const RunGroup& group, const char* name) {
    if (group.runs.empty())
        throw UserError(std::string(name) + " (" + group.path.string() + ") has no complete run");
    Side side{group, summarize(group.final_losses()), summarize(group.final_times_ms()),
              summarize(step_times_ms(group))};
    order_by_start(side.group);
    return side;
}

bool dated(const RunGroup& group) {
    return std::ranges::all_of(group.runs,
                               [](const GroupRun& r) { return r.run.header.started.has_value(); });
}

// Whether runs of one side lie between runs of the other.
std::optional<bool> took_turns(const RunGroup& a, const RunGroup& b) {
    if (!dated(a) || !dated(b)) return std::nullopt;
    const auto start = [](const GroupRun& r) { return *r.run.header.started; };
    return start(a.runs.front()) < start(b.runs.back()) && start(b.runs.front()) < start(a.runs.back());
}

Interval paired_difference(const RunGroup& baseline, const RunGroup& changed, double confidence) {
    if (baseline.runs.size() != changed.runs.size())
        throw UserError("paired runs: the baseline has " + std::to_string(baseline.runs.size()) +
                        " complete runs, the other side " + std::to_string(changed.runs.size()));
    std::vector<double> differences = changed.final_times_ms();
    const auto before = baseline.final_times_ms();
    for (size_t i = 0; i < differences.size(); ++i) differences[i] -= before[i];
    return mean_interval(differences, confidence);
}

// name -> every value that a run of the group was logged with.
using Versions = std::map<std::string, std::set<std::string>>;

Versions versions_of(const RunGroup& group) {
    Versions versions;
    for (const GroupRun& r : group.runs) {
        const RunHeader& header = r.run.header;
        for (const auto& [name, version] : header.versions) versions[name].insert(version);
        if (!header.hardware.driver.empty()) versions["driver"].insert(header.hardware.driver);
        if (!header.hardware.cuda.empty()) versions["driver's CUDA"].insert(header.hardware.cuda);
    }
    return versions;
}

void warn_of_versions(const RunGroup& baseline, const RunGroup& changed, std::vector<std::string>& warnings) {
    const Versions before = versions_of(baseline), after = versions_of(changed);
    for (const auto& [name, values] : before) {
        const auto other = after.find(name);
        if (other != after.end() && other->second != values)
            warnings.push_back(name + " differs: " + joined(values) + " -> " + joined(other->second));
    }
}

std::vector<std::string> warnings_of(const Comparison& c) {
    std::vector<std::string> warnings;
    const RunGroup &before = c.baseline.group, &after = c.changed.group;
    if (before.hardware != after.hardware)
        warnings.push_back("hardware differs: " + (before.hardware.empty() ? "not logged" : before.hardware) +
                           " -> " + (after.hardware.empty() ? "not logged" : after.hardware));
    warn_of_versions(before, after, warnings);
    if (c.baseline.time_ms.n < 2 || c.changed.time_ms.n < 2)
        warnings.emplace_back("one run on a side: no confidence interval");
    if (std::isnan(c.time_ms.value)) warnings.emplace_back("a side has runs whose log holds no times");
    if (c.interleaved == false)
        warnings.emplace_back("the runs did not take turns: drift of the machine counts as change");
    return warnings;
}

}  // namespace

Comparison compare_groups(const RunGroup& baseline, const RunGroup& changed, double confidence, bool paired) {
    if (!(confidence > 0 && confidence < 1)) throw UserError("a confidence lies between 0 and 1");
    Comparison c;
    c.baseline = side_of(baseline, "the baseline");
    c.changed = side_of(changed, "the new side");
    const RunGroup &before = c.baseline.group, &after = c.changed.group;
    c.loss = welch_interval(before.final_losses(), after.final_losses(), confidence);
    c.time_ms = welch_interval(before.final_times_ms(), after.final_times_ms(), confidence);
    c.step_ms = welch_interval(step_times_ms(before), step_times_ms(after), confidence);
    if (paired) c.paired_time = paired_difference(before, after, confidence);
    c.steps = after.steps - before.steps;
    const double mean_steps = static_cast<double>(after.steps + before.steps) / 2;
    c.by_steps_ms = static_cast<double>(c.steps) * (c.baseline.step_ms.mean + c.changed.step_ms.mean) / 2;
    c.by_step_time_ms = c.step_ms.value * mean_steps;
    c.interleaved = took_turns(before, after);
    c.warnings = warnings_of(c);
    return c;
}

}  // namespace speedrun
