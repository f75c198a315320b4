#pragma once
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
    ~LineFile();
    LineFile(LineFile&& other) noexcept;
    LineFile& operator=(LineFile&&) = delete;

    // Writes `text` and '\n'. Throws UserError with the path and the system's reason (such as a full disk).
    void line(std::string_view text);
    const std::filesystem::path& path() const { return path_; }

  private:
    std::filesystem::path path_;
    int fd_ = -1;
};

}  // namespace speedrun
