#pragma once
#include <cstddef>
#include <filesystem>
#include <string>

namespace speedrun {

// The bytes of a file. UserError where it cannot be read, or has more than `most` bytes.
std::string read_file(const std::filesystem::path& file, size_t most);

}  // namespace speedrun
