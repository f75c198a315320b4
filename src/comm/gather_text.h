#pragma once
#include <string>
#include <vector>

#include "comm/communicator.h"

namespace speedrun {

// Every rank's `text`, in rank order, on every rank. `label` names the collectives.
std::vector<std::string> gather_text(Communicator& communicator, const std::string& text,
                                     std::string_view label);

}  // namespace speedrun
