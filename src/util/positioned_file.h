#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace speedrun {

// A file written at places known beforehand, by several processes perhaps. Errors are UserErrors that name
// the file.
class PositionedFile {
  public:
    // Opens or creates `path` and reserves `bytes` of disk for it: a full disk shows here.
    PositionedFile(std::filesystem::path path, uint64_t bytes);
    ~PositionedFile();
    PositionedFile(PositionedFile&& other) noexcept;
    PositionedFile(const PositionedFile&) = delete;
    PositionedFile& operator=(const PositionedFile&) = delete;

    // Whole blocks in memory that begins within a block where `offset` does go to the disk as they are, where
    // the file system allows it; the rest goes through the page cache. A copy of everything there costs a
    // core for longer than the disk takes, and the system memory that a run may want.
    void write(std::span<const std::byte> bytes, uint64_t offset);
    void sync();

    static constexpr size_t block = 4096;  // of all disks, or a multiple of theirs

  private:
    void write_to(int fd, std::span<const std::byte> bytes, uint64_t offset);
    [[noreturn]] void fail(const char* doing, int error) const;

    std::filesystem::path path_;
    int fd_ = -1;
    int direct_ = -1;  // past the page cache; -1 where that cannot be
};

// Puts what has been written to a file, by anybody, on its disk. UserError where that cannot be.
void sync_file(const std::filesystem::path& file);

// Makes what has been created, renamed or removed in `folder` survive a crash. UserError where it cannot.
void sync_folder(const std::filesystem::path& folder);

}  // namespace speedrun
