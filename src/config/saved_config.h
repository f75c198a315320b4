#pragma once
#include <filesystem>
#include <span>
#include <string>

#include "config/config.h"

namespace speedrun {

// The config.json that a run left in its directory or in a checkpoint. As load_config, but such a file is
// whole in itself: UserError where it "extends" another, so that a folder from elsewhere leads nowhere else.
Config load_saved_config(const std::filesystem::path& file, std::span<const std::string> overrides = {});

}  // namespace speedrun
