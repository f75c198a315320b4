#pragma once
#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>

namespace speedrun {

// A file that appears under its name whole or not at all: it is written beside its place under a temporary
// name, which no link can stand for, and commit() syncs and renames it. Without commit() nothing is left
// behind. Errors are UserErrors that name the file.
class AtomicFile {
  public:
    // no: what a crash of the machine may lose, such as news that are soon replaced.
    enum class Sync { no, yes };
    // Creates the temporary file. An existing regular file at `path` stays until commit(); anything else
    // there is an error.
    explicit AtomicFile(std::filesystem::path path, Sync sync = Sync::yes);
    ~AtomicFile();
    AtomicFile(const AtomicFile&) = delete;
    AtomicFile& operator=(const AtomicFile&) = delete;

    void write(std::span<const std::byte> bytes);
    void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
    void commit();  // once; nothing may be written after

  private:
    [[noreturn]] void fail(const char* doing, int error) const;

    std::filesystem::path path_, temporary_;
    Sync sync_;
    int fd_ = -1;
    size_t written_ = 0;
};

// All of a file at once.
void write_atomically(const std::filesystem::path& path, std::string_view text);

}  // namespace speedrun
