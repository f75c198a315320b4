#include <string>

#include "config/config.h"
#include "util/json_diff.h"
#include "util/json_document.h"

namespace speedrun {

std::string config_diff(const Config& a, const Config& b) {
    std::string text;
    for (const JsonDifference& d : json_diff(parse_json(a.resolved_json, "resolved config"),
                                             parse_json(b.resolved_json, "resolved config")))
        text += d.path + ": " + d.before + " -> " + d.after + "\n";
    return escape_controls(text);
}

}  // namespace speedrun
