#pragma once
// What types and ranges alone cannot say: sizes that must fit each other, and names that must resolve.
#include "config/config.h"
#include "config/origins.h"

namespace speedrun {

void validate_data(const Config& config, const Report& report);
// Shapes, slices, initialisers and names in files of the parameters. The rest of the model is what compiling
// it checks (model/graph).
void validate_params(const ModelConfig& model, const Report& report);
void validate_optimizer(const Config& config, const Report& report);
// Buckets hold every parameter once, and each what one collective can carry.
void validate_comm(const Config& config, const Report& report);
void validate_schedule(const Config& config, const Report& report);
void validate_runtime(const Config& config, const Report& report);

}  // namespace speedrun
