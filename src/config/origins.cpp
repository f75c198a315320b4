#include "config/origins.h"

#include "util/error.h"
#include "util/nearest.h"
#include "util/text.h"

namespace speedrun {
void Origins::erase_below(const std::string& path) {
    auto at = origins_.upper_bound(path);
    while (at != origins_.end() && at->first.starts_with(path)) {
        const bool below = path.empty() || at->first[path.size()] == '.' || at->first[path.size()] == '[';
        at = below ? origins_.erase(at) : std::next(at);
    }
}

Origin Origins::find(const std::string& path) const {
    std::string known = path;
    while (true) {
        if (const auto at = origins_.find(known); at != origins_.end()) {
            std::string rest = path.substr(known.size());
            if (at->second.path.empty() && rest.starts_with('.')) rest.erase(0, 1);
            return {at->second.where, at->second.path + rest};
        }
        if (known.empty()) return {"config", path};
        const size_t last = known.find_last_of(".[");
        known.erase(last == std::string::npos ? 0 : last);
    }
}

std::string join_path(const std::string& path, const std::string& key) {
    return path.empty() ? key : path + "." + key;
}

std::string join_path(const std::string& path, size_t index) {
    return path + "[" + std::to_string(index) + "]";
}

std::string nearest_name(const std::string& name, std::span<const std::string> candidates) {
    constexpr size_t long_enough_to_tell = 3;
    if (name.size() >= long_enough_to_tell)
        for (const auto& candidate : candidates)
            if (candidate.find(name) != std::string::npos) return candidate;
    return nearest(name.substr(0, 100), candidates);  // no valid name is as long, and the cost stays small
}

void Report::fail(const std::string& path, const std::string& what, const Details& details) const {
    const Origin origin = origins_.find(path);
    std::string text =
        origin.where + ": " + (origin.path.empty() ? "top level" : printable(origin.path)) + ": " + what;
    if (!details.found.empty()) text += "; found " + details.found;
    if (!details.allowed.empty()) text += "; allowed: " + details.allowed;
    if (!details.nearest.empty()) text += "; nearest valid name: \"" + details.nearest + "\"";
    throw UserError(text);
}

void Report::fail_name(const std::string& path, const std::string& what, const std::string& name,
                       std::span<const std::string> allowed) const {
    fail(path, what,
         {in_quotes(name), allowed.empty() ? "nothing here" : joined(allowed), nearest_name(name, allowed)});
}

}  // namespace speedrun
