#pragma once
// What Linux' control groups allow this process. `root` is where /proc and /sys are looked for.
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace speedrun {

struct ControlGroup {
    std::filesystem::path folder;  // of its files; it may not be there
    bool version2 = false;
};

// The groups that limit this process by `controller` ("memory", "cpu"): its own, and all above it. In a
// container the path may be one of the host's, which is not there: then what is mounted counts, which is
// last.
std::vector<ControlGroup> control_groups(const std::string& controller, const std::filesystem::path& root);

// Cores that this process may use at a time: those of its affinity, or fewer where a group's quota gives it
// less of the processor, rounded up; at least 1.
int64_t available_cores(const std::filesystem::path& root = "/");

}  // namespace speedrun
