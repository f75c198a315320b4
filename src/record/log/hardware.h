#pragma once
#include <cstdint>
#include <string>

namespace speedrun {

// What the run is on, several lines: nvidia-smi's table where that program works; processor model, the cores
// this process may use, the vector extensions that matter here, memory, kernel.
std::string hardware_table();

// Largest resident set of this process so far (VmHWM of /proc/self/status), in bytes.
int64_t peak_resident_bytes();

}  // namespace speedrun
