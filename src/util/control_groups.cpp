#include "util/control_groups.h"

#include <sched.h>

#include <algorithm>
#include <fstream>

namespace speedrun {
namespace {

namespace fs = std::filesystem;

int64_t cores_of_affinity() {
    constexpr int most = 1 << 16;
    cpu_set_t* const set = CPU_ALLOC(most);
    const size_t bytes = CPU_ALLOC_SIZE(most);
    CPU_ZERO_S(bytes, set);
    const int64_t cores = ::sched_getaffinity(0, bytes, set) == 0 ? CPU_COUNT_S(bytes, set) : 1;
    CPU_FREE(set);
    return cores;
}

std::optional<int64_t> number_in(const fs::path& file) {
    std::ifstream in(file);
    int64_t value = 0;
    if (!(in >> value)) return {};
    return value;
}

// Microseconds of processor time in a period, and the period.
struct Quota {
    int64_t time = 0, period = 0;
};

std::optional<Quota> quota_of(const ControlGroup& group) {
    if (group.version2) {  // "max 100000" where there is none
        std::ifstream in(group.folder / "cpu.max");
        Quota quota;
        if (in >> quota.time >> quota.period) return quota;
        return {};
    }
    const auto time = number_in(group.folder / "cpu.cfs_quota_us"),
               period = number_in(group.folder / "cpu.cfs_period_us");  // a quota of -1 where there is none
    if (!time || !period) return {};
    return Quota{*time, *period};
}

}  // namespace

std::vector<ControlGroup> control_groups(const std::string& controller, const fs::path& root) {
    std::vector<ControlGroup> groups;
    // "0::/user.slice" is version 2, "9:memory:/docker/12ab" version 1.
    std::ifstream in(root / "proc/self/cgroup");
    for (std::string line; std::getline(in, line);) {
        const size_t first = line.find(':'), second = line.find(':', first + 1);
        if (second == std::string::npos) continue;
        const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
        const bool version2 = controllers == ",,";
        if (!version2 && controllers.find("," + controller + ",") == std::string::npos) continue;
        const fs::path top = root / "sys/fs/cgroup" / (version2 ? "" : controller);
        for (fs::path path = line.substr(second + 1);; path = path.parent_path()) {
            groups.push_back({top / path.relative_path(), version2});
            if (!path.has_relative_path()) break;
        }
    }
    return groups;
}

int64_t available_cores(const fs::path& root) {
    int64_t cores = cores_of_affinity();
    for (const ControlGroup& group : control_groups("cpu", root)) {
        const auto quota = quota_of(group);
        if (!quota || quota->time <= 0 || quota->period <= 0) continue;
        cores = std::min(cores, (quota->time + quota->period - 1) / quota->period);
    }
    return std::max<int64_t>(cores, 1);
}

}  // namespace speedrun
