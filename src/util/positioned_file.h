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

    void write(std::span<const std::byte> bytes, uint64_t offset);
    void sync();

  private:
    [[noreturn]] void fail(const char* doing, int error) const;

    std::filesystem::path path_;
    int fd_ = -1;
};

// Makes what has been created, renamed or removed in `folder` survive a crash. UserError where it cannot.
void sync_folder(const std::filesystem::path& folder);

}  // namespace speedrun
