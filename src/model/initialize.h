#pragma once
#include <cstdint>

#include "config/config.h"
#include "model/parameters.h"

namespace speedrun {

// Sets every parameter to its declared initial value and refreshes the compute copies. Random values are
// those of torch's CPU generator after torch.manual_seed(seed), drawn in fp32 (then cast) in the reference's
// order of construction: parameters without layers as declared, entry by entry, then layer by layer the
// layer's parameters as declared. Zeros and constants draw nothing. So the weights of record 43 are, bit for
// bit, those train_gpt.py constructs after torch.manual_seed(seed).
void initialize(ParameterTable& table, const ModelConfig& model, uint64_t seed);

}  // namespace speedrun
