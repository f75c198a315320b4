#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "util/mapped_file.h"

namespace speedrun {

// One tensor of a safetensors file: little-endian, row-major.
struct SafeTensor {
    std::string name;
    std::string dtype;  // as the format spells it: "F32", "BF16", "I64", ...
    std::vector<int64_t> shape;
    std::span<const std::byte> data;  // may be unaligned in memory: copy, do not cast
};

// Bytes of one element of `dtype`, 0 for a name the format (version 0.4: whole-byte types) does not have.
int64_t safetensors_item_size(const std::string& dtype);

// A safetensors file, mapped and checked whole on opening: https://github.com/huggingface/safetensors#format
// The header must be strict JSON of the documented shape; the tensors must tile the data exactly: no overlap,
// no hole, nothing outside, every size the product of its shape. Otherwise a UserError with file, byte offset
// and tensor. At most 100,000 tensors of 64 dimensions with names of 4,096 bytes, and as many texts.
class SafetensorsFile {
  public:
    explicit SafetensorsFile(const std::filesystem::path& path);

    const std::filesystem::path& path() const { return file_.path(); }
    const std::vector<SafeTensor>& tensors() const { return tensors_; }  // in order of their data
    const SafeTensor* find(const std::string& name) const;               // nullptr if there is none
    const std::map<std::string, std::string>& metadata() const { return metadata_; }
    // When data has been copied: UserError where the file was cut in the meantime.
    void check_unchanged() const { file_.check_unchanged(); }

  private:
    MappedFile file_;
    std::vector<SafeTensor> tensors_;
    std::map<std::string, std::string> metadata_;
};

// A tensor before its data is known.
struct TensorSpec {
    std::string name, dtype;
    std::vector<int64_t> shape;
};

// Where everything lies in a file of these tensors: wider dtypes first, as alignment wants, then in the order
// given.
class SafetensorsLayout {
  public:
    explicit SafetensorsLayout(std::vector<TensorSpec> tensors,
                               const std::map<std::string, std::string>& metadata = {});

    const std::string& head() const { return head_; }                    // the bytes in front of the data
    const std::vector<TensorSpec>& tensors() const { return tensors_; }  // in order of their data
    uint64_t offset(
        const std::string& name) const;  // of a tensor's data in the file; InternalError if there is none
    uint64_t file_bytes() const { return file_bytes_; }

  private:
    std::vector<TensorSpec> tensors_;
    std::map<std::string, uint64_t> offsets_;
    std::string head_;
    uint64_t file_bytes_ = 0;
};

// Writes a safetensors file atomically (see AtomicFile), laid out as SafetensorsLayout has it.
void write_safetensors(const std::filesystem::path& path, const std::vector<SafeTensor>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace speedrun
