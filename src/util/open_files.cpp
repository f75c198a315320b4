#include "util/open_files.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cctype>
#include <fstream>
#include <string>

#include "util/files.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;

// "flags:" of /proc/PID/fdinfo/N, octal.
bool writes(const fs::path& info) {
    std::ifstream in(info);
    for (std::string name, value; in >> name >> value;)
        if (name == "flags:") return (std::stoul(value, nullptr, 8) & O_ACCMODE) != O_RDONLY;
    return false;
}

bool process_writes(const fs::path& process, const struct stat& wanted) {
    for (const fs::path& entry : files::list_if_there(process / "fd")) {
        struct stat found {};
        if (::stat(entry.c_str(), &found) == 0 && found.st_ino == wanted.st_ino &&
            found.st_dev == wanted.st_dev && writes(process / "fdinfo" / entry.filename()))
            return true;
    }
    return false;
}

}  // namespace

bool is_open_for_writing(const fs::path& file) {
    struct stat wanted {};
    if (::stat(file.c_str(), &wanted) != 0) return false;
    for (const fs::path& process : files::list_if_there("/proc"))
        if (std::isdigit(static_cast<unsigned char>(process.filename().c_str()[0])) != 0 &&
            process_writes(process, wanted))
            return true;
    return false;
}

}  // namespace speedrun
