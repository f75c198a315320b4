#include "util/json_diff.h"

#include <map>
#include <set>

#include "util/json_document.h"

namespace speedrun {
namespace {

using Leaves = std::map<std::string, std::string>;  // path -> value as JSON

void collect(const Json& value, const std::string& path, Leaves& leaves) {
    if (!value.is_structured() || value.empty()) {
        leaves[path] = value.dump(-1, ' ', false, Json::error_handler_t::replace);
    } else if (value.is_object()) {
        for (const auto& [key, member] : value.items())
            collect(member, path.empty() ? key : path + "." + key, leaves);
    } else {
        for (size_t i = 0; i < value.size(); ++i)
            collect(value[i], path + "[" + std::to_string(i) + "]", leaves);
    }
}

}  // namespace

std::vector<JsonDifference> json_diff(const Json& before, const Json& after) {
    Leaves a, b;
    collect(before, "", a);
    collect(after, "", b);
    std::set<std::string> paths;
    for (const auto& [path, value] : a) paths.insert(path);
    for (const auto& [path, value] : b) paths.insert(path);
    const auto value_at = [](const Leaves& leaves, const std::string& path) {
        const auto found = leaves.find(path);
        return found == leaves.end() ? "(absent)" : found->second;
    };
    std::vector<JsonDifference> differences;
    for (const std::string& path : paths)
        if (value_at(a, path) != value_at(b, path))
            differences.push_back({path, value_at(a, path), value_at(b, path)});
    return differences;
}

}  // namespace speedrun
