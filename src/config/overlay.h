#pragma once
// From files to one document: "extends", --set, and layer_defaults merged into each layer.
#include <filesystem>
#include <functional>
#include <span>
#include <string>

#include "config/origins.h"
#include "util/json_document.h"

namespace speedrun {

using OriginOf = std::function<Origin(const std::string& path)>;

// Lays `patch` over `target`: objects merge key by key, everything else (arrays, scalars, null) replaces.
// What a key set to null means is up to its reader. Notes in `origins` where each value came from.
void overlay(Json& target, const std::string& path, const Json& patch, const OriginOf& origin,
             Origins& origins);

// What optimizer.matrix says belongs to the rule that it names: where `rule` is another one, `section` at
// `path` starts anew. Anywhere else nothing happens.
void choose_rule(Json& section, const std::string& path, const Json& rule, Origins& origins);

// `file` laid over the chain it "extends" (paths relative to the file that names them), without the keys
// "extends" and
// "$schema". UserError for a cycle, a missing parent, a parent that is no regular file, a chain of more than
// 64, or a document that is no object.
Json read_with_parents(const std::filesystem::path& file, Origins& origins);

// Applies "a.b[2].c=VALUE": VALUE is JSON, or else a bare string. The path must be one that config_schema()
// has.
void apply_override(Json& root, const std::string& text, Origins& origins);

// Replaces model.layers (overrides, each naming its layer by "i") by n_layer whole layers:
// model.layer_defaults with the layer's own entries laid over them. A layer with skip_layer takes no
// defaults; one whose attn (mlp) is null does not inherit after_attn (after_mlp).
void expand_layers(Json& root, Origins& origins);

}  // namespace speedrun
