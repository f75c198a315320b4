#pragma once
#include <string>
#include <utility>
#include <vector>

namespace speedrun {

// How this executable was built; filled in by CMake.
std::string build_version();  // "0.1.0"
std::string
build_commit();  // git commit, " + uncommitted changes" where there were some; "unknown" outside git
std::string build_summary();   // build type, flags, compiler and its version
std::string build_backends();  // "cpu" or "cpu, cuda"
std::vector<std::pair<std::string, std::string>>
library_versions();  // name, version, of what the numbers depend on

}  // namespace speedrun
