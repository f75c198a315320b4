#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace speedrun {

// A whole file, mapped read-only. Where another process cuts it short in the meantime, reading what is gone
// would end this one by SIGBUS; instead it reads zeros, and check_unchanged() says what happened.
class MappedFile {
  public:
    // UserError if it cannot be opened or mapped, or is not a regular file. An empty file has no bytes.
    explicit MappedFile(std::filesystem::path path);
    ~MappedFile();
    MappedFile(MappedFile&& other) noexcept;
    MappedFile& operator=(MappedFile&& other) noexcept;
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;

    const std::filesystem::path& path() const { return path_; }
    std::span<const std::byte> bytes() const { return bytes_; }

    // UserError where the file no longer has the size it was mapped with. Call it when bytes have been read
    // and before they are used. A file that has lost only its name is whole.
    void check_unchanged() const;

    // Asks the kernel to read the whole file now.
    void prefetch() const;

  private:
    std::filesystem::path path_;
    int fd_ = -1;
    size_t slot_ = 0;  // in the table of the signal's handler
    std::span<const std::byte> bytes_;
};

}  // namespace speedrun
