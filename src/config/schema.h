#pragma once
#include "util/json_document.h"

namespace speedrun {

// The JSON Schema (draft 2020-12) of a config file, made from the same description the reader uses. No key is
// required, since a file may inherit it from the one it extends. configs/speedrun.schema.json is
// pretty_json() of this.
const Json& config_schema();

}  // namespace speedrun
