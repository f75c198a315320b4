#pragma once
#include <cstdint>

namespace speedrun {

// Puts something behind those of stdin, stdout and stderr that are closed, which can be neither read nor
// written: otherwise the next file that is opened would take their place, and get what is printed.
void open_standard_files();

// For the life of the process: a file that may not grow further is an error of the write that finds it
// (EFBIG), and not the end of the process by SIGXFSZ.
void report_full_files();

// For work that lasts and whose results are in files: where nobody reads stdout or stderr any more, it goes
// on, and is not ended by SIGPIPE.
void outlive_readers();

// Starts `count` threads beside those that there are, all at the same time, and ends them again. UserError
// where the system refuses one. Libraries that start threads find out too late: they wait for the refused one
// for ever, or end the process.
void require_room_for_threads(int64_t count);

}  // namespace speedrun
