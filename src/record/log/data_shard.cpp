#include "record/log/data_shard.h"

#include <charconv>

namespace speedrun {
namespace {

constexpr std::string_view kTraining = "training shard: ", kValidation = "validation shard: ";
constexpr std::string_view kBytes = " bytes", kSha256 = ", sha256 ";
constexpr size_t kSha256Digits = 64;

// Cuts `line` at the last `separator` and returns what follows it. The path comes first and may hold
// anything.
std::optional<std::string_view> cut_last(std::string_view& line, std::string_view separator) {
    const size_t at = line.rfind(separator);
    if (at == std::string_view::npos) return std::nullopt;
    const std::string_view rest = line.substr(at + separator.size());
    line = line.substr(0, at);
    return rest;
}

bool is_sha256(std::string_view text) {
    return text.size() == kSha256Digits &&
           text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

}  // namespace

std::string data_shard_line(const DataShard& shard) {
    std::string line(shard.use == DataShard::Use::training ? kTraining : kValidation);
    return line.append(shard.path)
        .append(", ")
        .append(std::to_string(shard.bytes))
        .append(kBytes)
        .append(kSha256)
        .append(shard.sha256);
}

std::optional<DataShard> parse_data_shard_line(std::string_view line) {
    DataShard shard;
    if (line.starts_with(kTraining)) {
        line.remove_prefix(kTraining.size());
    } else if (line.starts_with(kValidation)) {
        line.remove_prefix(kValidation.size());
        shard.use = DataShard::Use::validation;
    } else {
        return std::nullopt;
    }
    const auto hash = cut_last(line, kSha256);
    if (!hash || !is_sha256(*hash) || !line.ends_with(kBytes)) return std::nullopt;
    line.remove_suffix(kBytes.size());
    const auto bytes = cut_last(line, ", ");
    if (!bytes) return std::nullopt;
    const auto [end, error] = std::from_chars(bytes->data(), bytes->data() + bytes->size(), shard.bytes);
    if (error != std::errc() || end != bytes->data() + bytes->size()) return std::nullopt;
    shard.path = line;
    shard.sha256 = *hash;
    return shard;
}

}  // namespace speedrun
