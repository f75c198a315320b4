#include "app/build_info.h"

#include <ATen/Version.h>
#include <gnu/libc-version.h>
#include <torch/headeronly/version.h>

#include <nlohmann/json.hpp>
#include <regex>

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

namespace {

// "3.7.1" of "Intel(R) MKL-DNN v3.7.1 (Git Hash ...)"; all of a text without such a number.
std::string version_in(const std::string& text) {
    std::smatch found;
    return std::regex_search(text, found, std::regex("[0-9]+(\\.[0-9]+)+")) ? found.str() : text;
}

}  // namespace

std::vector<std::pair<std::string, std::string>> library_versions() {
    const auto part = [](int number) { return std::to_string(number); };
    return {{"torch", TORCH_VERSION},
            {"MKL", version_in(at::get_mkl_version())},
            {"oneDNN", version_in(at::get_mkldnn_version())},
            {"OpenMP", version_in(at::get_openmp_version())},
            {"ATen's vector extensions", at::get_cpu_capability()},
            {"glibc", gnu_get_libc_version()},
            {"nlohmann_json", part(NLOHMANN_JSON_VERSION_MAJOR) + "." + part(NLOHMANN_JSON_VERSION_MINOR) +
                                  "." + part(NLOHMANN_JSON_VERSION_PATCH)}};
}

}  // namespace speedrun
