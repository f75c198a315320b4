#pragma once
#include "util/held_folder.h"

namespace speedrun {

// A folder that one process at a time may hold; released when that process ends, however it ends. Move-only.
class FolderLock {
  public:
    // UserError where another process holds `path`, or where it cannot be opened. A file system that has no
    // locks (some network file systems) lets everybody through.
    explicit FolderLock(const std::filesystem::path& path);
    const HeldFolder& folder() const { return folder_; }

  private:
    HeldFolder folder_;
};

}  // namespace speedrun
