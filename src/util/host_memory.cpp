#include "util/host_memory.h"

#include <algorithm>
#include <fstream>
#include <initializer_list>
#include <sstream>
#include <string>

#include "util/control_groups.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;

// The only number of a file; none where there is no such file, or it says "max".
std::optional<int64_t> memory_number_in(const fs::path& file) {
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
    const char *limit, *usage;
    std::initializer_list<const char*> reclaimable;  // in memory.stat
};
const GroupFiles kVersion1{
    "memory.limit_in_bytes", "memory.usage_in_bytes", {"total_inactive_file", "total_active_file"}};
const GroupFiles kVersion2{"memory.max", "memory.current", {"inactive_file", "active_file"}};

std::optional<int64_t> left_in_group(const fs::path& group, const GroupFiles& files) {
    const auto limit = memory_number_in(group / files.limit), usage = memory_number_in(group / files.usage);
    if (!limit || !usage) return {};
    int64_t in_use = *usage;
    for (const char* key : files.reclaimable) in_use -= number_of(group / "memory.stat", key).value_or(0);
    return std::max<int64_t>(0, *limit - std::max<int64_t>(0, in_use));
}

// What is left of a limit of this process, of which it uses "kB" that a line of /proc/self/status names.
std::optional<int64_t> left_of(const fs::path& root, const std::string& limit, const char* used) {
    std::ifstream in(root / "proc/self/limits");
    for (std::string line; std::getline(in, line);) {
        int64_t most = 0;
        if (!line.starts_with(limit) || !(std::istringstream(line.substr(limit.size())) >> most)) continue;
        const auto kib = number_of(root / "proc/self/status", used);
        if (kib) return std::max<int64_t>(0, most - *kib * 1024);
    }
    return {};
}

}  // namespace

std::optional<int64_t> available_host_memory(const fs::path& root) {
    const auto available = number_of(root / "proc/meminfo", "MemAvailable:");
    if (!available) return {};
    int64_t least = *available * 1024;
    for (const ControlGroup& group : control_groups("memory", root)) {
        const auto left = left_in_group(group.folder, group.version2 ? kVersion2 : kVersion1);
        if (left) least = std::min(least, *left);
    }
    return least;
}

std::optional<int64_t> available_address_space(const fs::path& root) {
    const auto all = left_of(root, "Max address space", "VmSize:"),
               data = left_of(root, "Max data size", "VmData:");
    return all && data ? std::min(*all, *data) : all ? all : data;
}

}  // namespace speedrun
