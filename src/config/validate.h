#pragma once
// What types and ranges alone cannot say: sizes that must fit each other, and names that must resolve.
#include "config/config.h"
#include "config/origins.h"

namespace speedrun {

void validate_data(const Config& config, const Report& report);
void validate_params(const ModelConfig& model,
                     const Report& report);  // shapes, slices, initialisers, names in files
void validate_layers(const ModelConfig& model,
                     const Report& report);  // what input, layers and output refer to
void validate_optimizer(const Config& config, const Report& report);
// Buckets hold every parameter once, and each what one collective can carry.
void validate_comm(const Config& config, const Report& report);
void validate_schedule(const Config& config, const Report& report);
void validate_runtime(const Config& config, const Report& report);

}  // namespace speedrun
