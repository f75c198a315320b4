#include "util/host_memory.h"

#include <algorithm>
#include <fstream>
#include <initializer_list>
#include <sstream>
#include <string>

namespace speedrun {
namespace {

namespace fs = std::filesystem;

// The only number of a file; none where there is no such file, or it says "max".
std::optional<int64_t> number_in(const fs::path& file) {
    std::ifstream in(file);
    int64_t value = 0;
    if (!(in >> value)) return {};
    return value;
}

// The number behind `key` at the start of a line.
std::optional<int64_t> number_of(const fs::path& file, const std::string& key) {
    std::ifstream in(file);
    for (std::string line; std::getline(in, line);) {
        std::istringstream words(line);
        std::string word;
        int64_t value = 0;
        if (words >> word && word == key && words >> value) return value;
    }
    return {};
}

// How a version of control groups names things.
struct GroupFiles {
    const char *folder, *limit, *usage;
    std::initializer_list<const char*> reclaimable;  // in memory.stat
};
const GroupFiles kVersion1{"sys/fs/cgroup/memory",
                           "memory.limit_in_bytes",
                           "memory.usage_in_bytes",
                           {"total_inactive_file", "total_active_file"}};
const GroupFiles kVersion2{"sys/fs/cgroup", "memory.max", "memory.current", {"inactive_file", "active_file"}};

std::optional<int64_t> left_in_group(const fs::path& group, const GroupFiles& files) {
    const auto limit = number_in(group / files.limit), usage = number_in(group / files.usage);
    if (!limit || !usage) return {};
    int64_t in_use = *usage;
    for (const char* key : files.reclaimable) in_use -= number_of(group / "memory.stat", key).value_or(0);
    return std::max<int64_t>(0, *limit - std::max<int64_t>(0, in_use));
}

// Of the group at `path` and all above it. In a container the path may be one of the host's, which is not
// there: then what is mounted counts.
std::optional<int64_t> left_in_groups(const fs::path& root, const GroupFiles& files, fs::path path) {
    std::optional<int64_t> least;
    for (;; path = path.parent_path()) {
        const auto left = left_in_group(root / files.folder / path.relative_path(), files);
        if (left) least = std::min(*left, least.value_or(*left));
        if (!path.has_relative_path()) return least;
    }
}

}  // namespace

std::optional<int64_t> available_host_memory(const fs::path& root) {
    const auto available = number_of(root / "proc/meminfo", "MemAvailable:");
    if (!available) return {};
    int64_t least = *available * 1024;
    // "0::/user.slice" is version 2, "9:memory:/docker/12ab" version 1.
    std::ifstream groups(root / "proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {
        const size_t first = line.find(':'), second = line.find(':', first + 1);
        if (second == std::string::npos) continue;
        const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
        const bool version2 = controllers == ",,";
        if (!version2 && controllers.find(",memory,") == std::string::npos) continue;
        const auto left = left_in_groups(root, version2 ? kVersion2 : kVersion1, line.substr(second + 1));
        if (left) least = std::min(least, *left);
    }
    return least;
}

}  // namespace speedrun
