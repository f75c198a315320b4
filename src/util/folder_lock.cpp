#include "util/folder_lock.h"

#include <sys/file.h>

#include <cerrno>
#include <string>

#include "util/error.h"

namespace speedrun {

FolderLock::FolderLock(const std::filesystem::path& path) : folder_(path) {
    if (::flock(folder_.descriptor(), LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return;
    throw UserError(path.string() + ": another run is using it");
}

}  // namespace speedrun
