#pragma once
#include <filesystem>
#include <span>
#include <string>

#include "config/config.h"
#include "config/origins.h"

namespace speedrun {

// A config whose values are read and agree with each other, but whose model has not been followed yet: that
// is what load_config (model/load_config.h) does besides.
struct ConfigDraft {
    Config config;
    Origins origins;  // where each value was written, for errors
};

// Reads `file`, overlays it on what it "extends", applies `overrides` ("optimizer.matrix.lr=0.02", JSON
// values or bare strings). Throws UserError with file, JSON path, value found, values allowed, nearest valid
// key.
ConfigDraft read_config(const std::filesystem::path& file, std::span<const std::string> overrides = {});

}  // namespace speedrun
