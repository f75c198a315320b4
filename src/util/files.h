#pragma once
// What the file system has and does. Errors are UserErrors that name the path and the system's reason.
// Nothing else in the program calls the functions of std::filesystem, whose own exceptions would end it as a
// fault (tests/lint).
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace speedrun::files {

namespace fs = std::filesystem;

// What a path leads to, through links. UserError where that cannot be found out: a folder on the way that may
// not be searched, a ring of links, a name that is too long.
enum class Kind { none, file, folder, other };
Kind kind(const fs::path& path);
inline bool exists(const fs::path& path) {
    return kind(path) != Kind::none;
}
inline bool is_file(const fs::path& path) {
    return kind(path) == Kind::file;
}
inline bool is_folder(const fs::path& path) {
    return kind(path) == Kind::folder;
}

bool is_pipe(const fs::path& path);

// Bytes of a regular file.
uint64_t size(const fs::path& path);
// All of a regular file, of at most `most_bytes`; a pipe or device of that name is refused, and not waited
// for.
std::string read(const fs::path& file, uint64_t most_bytes);
// All that comes out of a file, pipe or device until its end, of at most `most_bytes`.
std::string read_any(const fs::path& file, uint64_t most_bytes);
// What is in a folder, sorted by name.
std::vector<fs::path> list(const fs::path& folder);
// The same; nothing where the folder is not there or cannot be read.
std::vector<fs::path> list_if_there(const fs::path& folder);

void make_folders(const fs::path& folder);  // with its parents; one that is there is left as it is
void rename(const fs::path& from, const fs::path& to);
void remove(const fs::path& path);  // a file, a link or an empty folder; nothing where there is none
void remove_all(const fs::path& path);
// Whether it is gone: for what is tidied up on the way out of something else.
bool try_remove(const fs::path& path) noexcept;
bool try_remove_all(const fs::path& path) noexcept;

std::optional<fs::path> link_target(const fs::path& link);  // none where it is no link, or cannot be read
fs::path working_folder();
fs::path executable();  // of this process
// Without links, "." and "..". None where nothing of that name is there.
std::optional<fs::path> real_path(const fs::path& path);
bool same(const fs::path& a, const fs::path& b);  // both are there and are one file or folder

// Bytes that a user may still write there; none where the file system does not say.
std::optional<uint64_t> free_bytes(const fs::path& folder);

}  // namespace speedrun::files
