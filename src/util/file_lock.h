#pragma once
#include <filesystem>

namespace speedrun {

// A file or folder that one process at a time may hold; released when that process ends, however it ends.
// Move-only.
class FileLock {
  public:
    // UserError where another process holds `path`, or where it cannot be opened. A file system that has no
    // locks (some network file systems) lets everybody through.
    explicit FileLock(const std::filesystem::path& path);
    ~FileLock();
    FileLock(FileLock&& other) noexcept;
    FileLock& operator=(FileLock&& other) noexcept;

  private:
    int fd_ = -1;
};

}  // namespace speedrun
