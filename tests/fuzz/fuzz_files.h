#pragma once
// Inputs of readers that take files: a folder in memory, and inputs made of several parts.
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "util/error.h"

namespace speedrun {

// A fresh folder for the life of the process.
class FuzzFolder {
  public:
    FuzzFolder() {
        const bool shm = std::filesystem::is_directory("/dev/shm");
        std::string pattern =
            ((shm ? std::filesystem::path("/dev/shm") : std::filesystem::temp_directory_path()) /
             "speedrun_fuzz_XXXXXX")
                .string();
        check(::mkdtemp(pattern.data()) != nullptr, "mkdtemp");
        path_ = pattern;
    }
    ~FuzzFolder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    FuzzFolder(const FuzzFolder&) = delete;
    FuzzFolder& operator=(const FuzzFolder&) = delete;

    const std::filesystem::path& path() const { return path_; }
    std::filesystem::path write(const std::string& name, std::string_view bytes) const {
        std::ofstream(path_ / name, std::ios::binary | std::ios::trunc) << bytes;
        return path_ / name;
    }

  private:
    std::filesystem::path path_;
};

// What precedes the next line "%%%%", which goes too; everything where there is none.
inline std::string_view next_part(std::string_view& rest) {
    constexpr std::string_view separator = "\n%%%%\n";
    const size_t end = rest.find(separator);
    const std::string_view part = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + separator.size());
    return part;
}

inline std::string_view as_text(const unsigned char* bytes, size_t size) {
    return {reinterpret_cast<const char*>(bytes), size};
}

// Whether a message can be shown on a terminal, and is of a length that somebody reads.
inline void check_message(const std::string& text) {
    for (const char c : text) check((c >= ' ' && c < 0x7f) || c == '\n', "a message of printable characters");
    check(text.size() < 100'000, "a message of a sane length");
}

}  // namespace speedrun
