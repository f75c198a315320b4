#pragma once
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

namespace speedrun {

// All of a file; empty where there is none.
inline std::string contents(const std::filesystem::path& path) {
    std::ostringstream text;
    text << std::ifstream(path, std::ios::binary).rdbuf();
    return text.str();
}

}  // namespace speedrun
