#pragma once
#include "comm/communicator.h"
#include "optim/optimizer.h"
#include "train/checkpoint/find.h"

namespace speedrun {

// Puts weights, this rank's share of the optimizer's state, and gradients that wait for Adam back to what
// they were, bit for bit; with another number of ranks than wrote them, those gradients' sum goes to rank 0.
// So are the scales of 8-bit floats; with another number of ranks, each takes the largest that any had for
// the activations of a weight. A run that had none in 8 bits has no scales: they are then as at a run's
// start. UserError where a file does not fit the run.
void load_checkpoint(const Checkpoint& checkpoint, const Config& config, ParameterTable& parameters,
                     Optimizer& optimizer, const Communicator& communicator);

}  // namespace speedrun
