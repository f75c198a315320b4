#pragma once
#include "config/config.h"
#include "util/json_document.h"

namespace speedrun {

// The whole config as a document from which load_config makes the same config again: every key explicit
// (absent names and mixes left out), sizes as numbers, each layer whole.
Json write_config(const Config& config);

}  // namespace speedrun
