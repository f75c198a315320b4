#pragma once
#include <filesystem>

namespace speedrun {

// A folder that is open: whatever happens to its name, it is known which one is meant. Move-only.
class HeldFolder {
  public:
    // UserError where it cannot be opened.
    explicit HeldFolder(std::filesystem::path path);
    ~HeldFolder();
    HeldFolder(HeldFolder&& other) noexcept;
    HeldFolder& operator=(HeldFolder&& other) noexcept;

    const std::filesystem::path& path() const { return path_; }  // as it was opened
    int descriptor() const { return fd_; }

    // Whether path() still leads to it.
    bool in_place() const;
    // UserError that says what has become of it unless it is in place.
    void require_in_place() const;
    // Where it is now: path(), or where it was moved to. UserError where it was removed.
    std::filesystem::path where() const;

  private:
    std::filesystem::path path_;
    int fd_ = -1;
};

}  // namespace speedrun
