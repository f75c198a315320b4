#pragma once
#include <c10/core/Device.h>

#include <string>
#include <vector>

#include "dist/communicator.h"

namespace speedrun {

// Every rank's `text`, in rank order, on every rank. `device` is that of the communicator's tensors. `label`
// names the collectives.
std::vector<std::string> gather_text(Communicator& communicator, const std::string& text, c10::Device device,
                                     std::string_view label);

}  // namespace speedrun
