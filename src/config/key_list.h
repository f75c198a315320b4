#pragma once
#include <string>
#include <vector>

#include "config/fields.h"

namespace speedrun {

// The keys that `visit` asks for at its own level, in order.
std::vector<std::string> key_list(const Fields::Visit& visit);

}  // namespace speedrun
