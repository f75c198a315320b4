#pragma once
#include <filesystem>

#include "model/parameters.h"

namespace speedrun {

// Weights files are safetensors with the reference's state_dict: its names, shapes and orders of dimensions,
// so that Python reads them with load_state_dict and the other way round.

// Writes every parameter in its own dtype; the file appears whole or not at all. UserError if it cannot be
// written.
void save_weights(const ParameterTable& table, const std::filesystem::path& path);

// Reads every parameter, converting from F32, BF16 or F16, then refreshes the compute copies. Missing, extra
// and mis-shaped tensors are UserErrors that name them; the table is then unchanged. A parameter that ends in
// a slice "pad" (the reference pads its scalars to a multiple of the world size) may have more or fewer pad
// elements in the file, of the pad's initial value.
void load_weights(ParameterTable& table, const std::filesystem::path& path);

}  // namespace speedrun
