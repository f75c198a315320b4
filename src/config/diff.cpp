#include <map>
#include <set>
#include <string>

#include "config/config.h"
#include "config/json_document.h"
#include "config/origins.h"

namespace speedrun {
namespace {

using Leaves = std::map<std::string, std::string>;  // path -> value as JSON

void collect(const Json& value, const std::string& path, Leaves& leaves) {
    if (!value.is_structured() || value.empty()) {
        leaves[path] = value.dump();
    } else if (value.is_object()) {
        for (const auto& [key, member] : value.items()) collect(member, join_path(path, key), leaves);
    } else {
        for (size_t i = 0; i < value.size(); ++i) collect(value[i], join_path(path, i), leaves);
    }
}

Leaves leaves_of(const Config& config) {
    Leaves leaves;
    collect(parse_json(config.resolved_json, "resolved config"), "", leaves);
    return leaves;
}

}  // namespace

std::string config_diff(const Config& a, const Config& b) {
    const Leaves before = leaves_of(a), after = leaves_of(b);
    std::set<std::string> paths;
    for (const auto& [path, value] : before) paths.insert(path);
    for (const auto& [path, value] : after) paths.insert(path);
    const auto value_at = [](const Leaves& leaves, const std::string& path) {
        const auto found = leaves.find(path);
        return found == leaves.end() ? "(absent)" : found->second;
    };
    std::string text;
    for (const auto& path : paths)
        if (value_at(before, path) != value_at(after, path))
            text += path + ": " + value_at(before, path) + " -> " + value_at(after, path) + "\n";
    return text;
}

}  // namespace speedrun
