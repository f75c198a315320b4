#pragma once
#include <filesystem>
#include <span>
#include <string>

#include "config/config.h"

namespace speedrun {

// read_config (config/read_config.h), and the model compiled, so that everything is checked before anything
// runs. UserError with file, JSON path, value found, values allowed, nearest valid name.
Config load_config(const std::filesystem::path& file, std::span<const std::string> overrides = {});

// The config.json that a run left in its directory or in a checkpoint. As load_config, but such a file is
// whole in itself: UserError where it "extends" another, so that a folder from elsewhere leads nowhere else.
Config load_saved_config(const std::filesystem::path& file, std::span<const std::string> overrides = {});

}  // namespace speedrun
