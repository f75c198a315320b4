#include "util/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "util/atomic_file.h"
#include "util/error.h"
#include "util/safetensors_header.h"
#include "util/shape.h"
#include "util/text.h"

namespace speedrun {
namespace {

static_assert(std::endian::native == std::endian::little);
constexpr uint64_t kMaxHeader = 100'000'000;  // the reference implementation's limit
constexpr uint64_t kPrefix = 8;               // the header's length comes first, as a 64-bit integer

[[noreturn]] void fail(const std::filesystem::path& path, uint64_t offset, const std::string& what) {
    throw UserError(fmt::format("{}: byte {}: {}", path.string(), offset, what));
}

std::string_view header_text(const std::filesystem::path& path, std::span<const std::byte> bytes) {
    if (bytes.size() < kPrefix) {
        fail(path, 0,
             fmt::format("the file ends inside the 8 bytes of the header's length ({} bytes)", bytes.size()));
    }
    uint64_t length = 0;
    std::memcpy(&length, bytes.data(), kPrefix);
    const uint64_t room = bytes.size() - kPrefix;
    if (length > kMaxHeader || length > room) {
        fail(path, 0,
             fmt::format("the header's length is given as {} bytes; at most {} are possible here (not a "
                         "safetensors file, or cut off)",
                         length, std::min(kMaxHeader, room)));
    }
    return {reinterpret_cast<const char*>(bytes.data()) + kPrefix, static_cast<size_t>(length)};
}

// Bytes of a tensor, or nothing where they are 2^63 or more.
std::optional<uint64_t> byte_count(const std::vector<int64_t>& shape, int64_t item_size) {
    constexpr int64_t most = std::numeric_limits<int64_t>::max();
    const auto count = element_count_up_to(most / item_size, shape);
    return count ? std::optional(static_cast<uint64_t>(*count * item_size)) : std::nullopt;
}

void check_entry(const std::filesystem::path& path, const SafetensorsEntry& entry, uint64_t data_size) {
    const auto bad = [&](const std::string& what) {
        fail(path, kPrefix + entry.position, "tensor " + in_quotes(entry.name) + ": " + what);
    };
    const int64_t item_size = safetensors_item_size(entry.dtype);
    if (item_size == 0) bad("unknown dtype " + in_quotes(entry.dtype));
    const std::string offsets = fmt::format("[{}, {}]", entry.begin, entry.end);
    if (entry.begin > entry.end) bad("data_offsets " + offsets + " end before they begin");
    if (entry.end > data_size) {
        bad(fmt::format("data_offsets {} reach beyond the {} bytes of data in the file", offsets, data_size));
    }
    const auto count = byte_count(entry.shape, item_size);
    if (!count) bad("the size of its shape overflows 64 bits");
    if (*count != entry.end - entry.begin) {
        bad(fmt::format("its shape and dtype need {} bytes, data_offsets {} give {}", *count, offsets,
                        entry.end - entry.begin));
    }
    if (entry.begin % static_cast<uint64_t>(item_size) != 0) {
        bad(fmt::format("data_offsets {} are not a multiple of its element's {} bytes", offsets, item_size));
    }
}

// `entries` in order of their data: each must begin where the one before ended.
void check_tiling(const std::filesystem::path& path, const std::vector<SafetensorsEntry>& entries,
                  uint64_t data_size) {
    uint64_t end = 0;
    std::string before = "the header";
    for (const SafetensorsEntry& entry : entries) {
        if (entry.begin != end) {
            fail(path, kPrefix + entry.position,
                 fmt::format("tensor {} begins at data byte {}, {} {}, which ends at {}",
                             in_quotes(entry.name), entry.begin,
                             entry.begin < end ? "inside of" : "leaving a hole behind", before, end));
        }
        end = entry.end;
        before = in_quotes(entry.name);
    }
    if (end != data_size) {
        fail(path, 0,
             fmt::format("the tensors end at data byte {}, the file has {} bytes of data", end, data_size));
    }
}

SafetensorsHeader read_header(const std::filesystem::path& path, std::span<const std::byte> bytes) {
    const std::string_view text = header_text(path, bytes);
    const uint64_t data_size = bytes.size() - kPrefix - text.size();
    try {
        if (!text.starts_with('{')) throw SafetensorsSyntax{0, "the header does not begin with '{'"};
        SafetensorsHeader header = parse_safetensors_header(text);
        for (const SafetensorsEntry& entry : header.entries) check_entry(path, entry, data_size);
        std::ranges::stable_sort(header.entries, {},
                                 [](const auto& entry) { return std::pair(entry.begin, entry.end); });
        check_tiling(path, header.entries, data_size);
        return header;
    } catch (const SafetensorsSyntax& error) {
        fail(path, kPrefix + error.position, error.what);
    }
}

}  // namespace

int64_t safetensors_item_size(const std::string& dtype) {
    static const std::map<std::string, int64_t> sizes = {
        {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"F8_E8M0", 1},
        {"U16", 2},  {"I16", 2}, {"F16", 2}, {"BF16", 2},    {"U32", 4},     {"I32", 4},
        {"F32", 4},  {"U64", 8}, {"I64", 8}, {"F64", 8}};
    const auto found = sizes.find(dtype);
    return found == sizes.end() ? 0 : found->second;
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : file_(path) {
    const std::span<const std::byte> bytes = file_.bytes();
    if (bytes.empty()) throw UserError(path.string() + ": is empty; a safetensors file has a header");
    SafetensorsHeader header = read_header(path, bytes);
    const size_t data = kPrefix + header_text(path, bytes).size();
    for (SafetensorsEntry& entry : header.entries) {
        tensors_.push_back({std::move(entry.name), std::move(entry.dtype), std::move(entry.shape),
                            bytes.subspan(data + entry.begin, entry.end - entry.begin)});
    }
    metadata_ = std::move(header.metadata);
}

const SafeTensor* SafetensorsFile::find(const std::string& name) const {
    const auto found = std::ranges::find(tensors_, name, &SafeTensor::name);
    return found == tensors_.end() ? nullptr : &*found;
}

SafetensorsLayout::SafetensorsLayout(std::vector<TensorSpec> tensors,
                                     const std::map<std::string, std::string>& metadata)
    : tensors_(std::move(tensors)) {
    std::ranges::stable_sort(tensors_, std::greater<>(),
                             [](const TensorSpec& t) { return safetensors_item_size(t.dtype); });
    auto header = nlohmann::ordered_json::object();
    if (!metadata.empty()) header["__metadata__"] = metadata;
    uint64_t offset = 0;
    for (const TensorSpec& tensor : tensors_) {
        const auto bytes = byte_count(tensor.shape, safetensors_item_size(tensor.dtype));
        check(bytes.has_value(), tensor.name + ": no size");
        check(offsets_.emplace(tensor.name, offset).second, tensor.name + " twice");
        header[tensor.name] = {
            {"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {offset, offset + *bytes}}};
        offset += *bytes;
    }
    std::string text = header.dump();
    text.resize((text.size() + kPrefix - 1) / kPrefix * kPrefix,
                ' ');  // data starts at a multiple of 8 bytes
    const uint64_t length = text.size();
    head_.assign(reinterpret_cast<const char*>(&length), sizeof length);
    head_ += text;
    for (auto& [name, at] : offsets_) at += head_.size();
    file_bytes_ = head_.size() + offset;
}

uint64_t SafetensorsLayout::offset(const std::string& name) const {
    const auto found = offsets_.find(name);
    check(found != offsets_.end(), "no tensor '" + name + "' in the file");
    return found->second;
}

void write_safetensors(const std::filesystem::path& path, const std::vector<SafeTensor>& tensors,
                       const std::map<std::string, std::string>& metadata) {
    std::vector<TensorSpec> specs;
    std::map<std::string, std::span<const std::byte>> data;
    for (const SafeTensor& tensor : tensors) {
        specs.push_back({tensor.name, tensor.dtype, tensor.shape});
        data[tensor.name] = tensor.data;
    }
    const SafetensorsLayout layout(std::move(specs), metadata);
    AtomicFile file(path);
    file.write(layout.head());
    for (const TensorSpec& tensor : layout.tensors()) {
        check(byte_count(tensor.shape, safetensors_item_size(tensor.dtype)) == data[tensor.name].size(),
              tensor.name + ": size and shape differ");
        file.write(data[tensor.name]);
    }
    file.commit();
}

}  // namespace speedrun
