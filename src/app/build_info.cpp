#include "app/build_info.h"

#include <torch/headeronly/version.h>

#include <nlohmann/json.hpp>

#include "speedrun_build_info.h"
#include "speedrun_git_commit.h"

namespace speedrun {

std::string build_version() {
    return kBuildVersion;
}

std::string build_commit() {
    return kGitCommit;
}

std::string build_summary() {
#if defined(__clang__)
    const std::string compiler = "";
#else
    const std::string compiler = "GCC ";
#endif
    return std::string(kBuildType) + ", " + kBuildFlags + ", " + compiler + __VERSION__;
}

std::string build_backends() {
    return kBuildBackends;
}

std::vector<std::pair<std::string, std::string>> library_versions() {
    const auto part = [](int number) { return std::to_string(number); };
    return {{"torch", TORCH_VERSION},
            {"nlohmann_json", part(NLOHMANN_JSON_VERSION_MAJOR) + "." + part(NLOHMANN_JSON_VERSION_MINOR) +
                                  "." + part(NLOHMANN_JSON_VERSION_PATCH)}};
}

}  // namespace speedrun
