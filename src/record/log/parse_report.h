#pragma once
#include <string>
#include <vector>

#include "record/log/run_log.h"

namespace speedrun {

// What a terminal is told of a run: outcome, hardware, stalls, validations. Needs Run::clock and
// Run::validations.
std::string run_text(const RunLog& log, size_t index);

// What is odd about the file: not a log, unplaced lines, an unfinished last line. One sentence each.
std::vector<std::string> log_remarks(const RunLog& log);

// "" where the file holds a run; else why it is not a log.
std::string no_log_reason(const RunLog& log);

}  // namespace speedrun
