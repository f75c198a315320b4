#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace speedrun {

// A text file written a whole line at a time: each line() has reached the operating system when it returns,
// so that a killed process loses nothing. Move-only.
class LineFile {
  public:
    // Creates `path`; throws UserError where it exists or cannot be created. Devices (/dev/full) are opened
    // as they are.
    explicit LineFile(const std::filesystem::path& path);
    // Goes on with the file at `path` after its first `keep` bytes; what follows them is cut off. One that is
    // shorter or not there, as after a power loss, goes on after its last whole line: bytes() then says
    // fewer. UserError where it cannot be opened.
    LineFile(const std::filesystem::path& path, uint64_t keep);
    ~LineFile();
    LineFile(LineFile&& other) noexcept;
    LineFile& operator=(LineFile&&) = delete;

    // Writes `text` and '\n'. Throws UserError with the path and the system's reason (such as a full disk).
    void line(std::string_view text);
    const std::filesystem::path& path() const { return path_; }
    uint64_t bytes() const { return bytes_; }  // written, and kept

  private:
    std::filesystem::path path_;
    int fd_ = -1;
    uint64_t bytes_ = 0;
};

}  // namespace speedrun
