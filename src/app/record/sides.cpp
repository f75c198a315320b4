#include "app/record/sides.h"

#include <array>
#include <string>
#include <utility>

#include "record/judge/check_report.h"
#include "util/diagnostics.h"
#include "util/error.h"

namespace speedrun {

namespace fs = std::filesystem;

std::vector<RunGroup> groups_of(const fs::path& path, bool counts_steps) {
    const std::array paths = {path};
    CollectOptions options;
    options.pool = true;
    options.counts_steps = counts_steps;
    Collection runs = collect_runs(paths, options);
    for (const auto& warning : collection_warnings(runs)) warn("{}", warning);
    std::erase_if(runs.groups, [](const RunGroup& g) { return g.runs.empty(); });
    if (!runs.problems.empty() && !runs.groups.empty())
        throw UserError(path.string() + ": a part of it could not be read");
    for (RunGroup& group : runs.groups) {
        group.path = path;
        for (const Excluded& e : group.excluded) warn("left out: {}: {}", e.path.string(), e.reason);
    }
    return std::move(runs.groups);
}

RunGroup side_of(const fs::path& path, bool counts_steps) {
    auto groups = groups_of(path, counts_steps);
    if (groups.empty()) throw UserError(path.string() + ": no complete run");
    if (groups.size() == 1) return std::move(groups.front());
    std::string text =
        path.string() + ": its runs differ in steps, source or hardware; name those of one kind:";
    for (const RunGroup& group : groups)
        text += "\n  " + std::to_string(group.steps) + " steps, source " + group.source_hash + ", " +
                group.hardware + ": " + std::to_string(group.runs.size()) + " runs, such as " +
                group.runs.front().path.string();
    throw UserError(text);
}

}  // namespace speedrun
