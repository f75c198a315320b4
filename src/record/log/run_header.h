#pragma once
#include <string_view>

#include "record/log/run_log.h"

namespace speedrun {

// Whether a header begins with this line: "Running PyTorch 2.10.0+cu128 ...", or "command: ..." in our own
// logs.
bool begins_header(std::string_view line);

// Adds what one line of a header says.
void read_header_line(std::string_view line, RunHeader& header);

}  // namespace speedrun
