#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>

namespace speedrun {

// Bytes that this process can still take without swapping or being killed for it: what the kernel calls
// available (/proc/meminfo), and what every control group that it is in leaves of its limit (versions 1 and
// 2), whichever is least. Pages of files count as free, for the kernel gives them up. None where
// /proc/meminfo does not say. `root` is where those files are looked for.
std::optional<int64_t> available_host_memory(const std::filesystem::path& root = "/");

// Bytes that the limits of this process itself (ulimit -v and -d) leave it; none where it has none.
std::optional<int64_t> available_address_space(const std::filesystem::path& root = "/");

}  // namespace speedrun
