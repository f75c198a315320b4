#include "record/judge/group_text.h"

#include "util/json_document.h"

namespace speedrun {

std::string run_name(const std::filesystem::path& path, size_t index) {
    return index == 0 ? path.string() : path.string() + " (run " + std::to_string(index + 1) + ")";
}

Json excluded_json(const RunGroup& group) {
    Json list = Json::array();
    for (const Excluded& e : group.excluded)
        list.push_back({{"path", e.path.string()}, {"run", e.index}, {"reason", e.reason}});
    return list;
}

std::vector<std::string> excluded_lines(const RunGroup& group) {
    std::vector<std::string> lines;
    for (const Excluded& e : group.excluded)
        lines.push_back("left out: " + run_name(e.path, e.index) + ": " + e.reason);
    return lines;
}

}  // namespace speedrun
