#include "config/saved_config.h"

#include "config/json_document.h"
#include "util/error.h"

namespace speedrun {

Config load_saved_config(const std::filesystem::path& file, std::span<const std::string> overrides) {
    const Json root = read_json_file(file);
    if (root.is_object() && root.contains("extends"))
        throw UserError(file.string() + ": extends: found " + brief_json(root["extends"]) +
                        "; a config that a run has saved is whole and extends nothing");
    return load_config(file, overrides);
}

}  // namespace speedrun
