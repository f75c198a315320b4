#pragma once
#include <filesystem>

namespace speedrun {

// Whether a process of this machine has the file open for writing. Those of other users are not seen, nor are
// other machines.
bool is_open_for_writing(const std::filesystem::path& file);

}  // namespace speedrun
