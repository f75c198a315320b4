#include "train/checkpoint/manifest.h"

#include <algorithm>
#include <limits>

#include "util/error.h"
#include "util/files.h"
#include "util/json_document.h"
#include "util/text.h"
#include "util/xxhash64.h"

namespace speedrun {
namespace {

constexpr int64_t kFormat = 2;
constexpr int64_t kMaxRanks = 1 << 20, kMaxThreads = int64_t{1} << 32;
constexpr size_t kMaxShards = 100'000;

std::string digest(const Json& body) {
    XxHash64 hash;
    hash.update(body.dump());
    return hex64(hash.digest());
}

Json shards_of(const std::vector<ShardIdentity>& shards) {
    Json list = Json::array();
    for (const ShardIdentity& shard : shards)
        list.push_back({{"name", shard.name}, {"bytes", shard.bytes}, {"xxh64", shard.xxh64}});
    return list;
}

Json body_of(const CheckpointManifest& m) {
    Json files = Json::object();
    for (const auto& [name, file] : m.files) files[name] = {{"bytes", file.bytes}, {"xxh64", file.xxh64}};
    Json body{{"format", kFormat},
              {"step", m.step},
              {"tokens", m.tokens},
              {"train_time_ms", m.train_time_ms},
              {"train_loss", m.train_loss},
              {"val_loss", nullptr},
              {"data", {{"shard", m.data.shard}, {"document", m.data.document}, {"step", m.data.step}}},
              {"train_shards", shards_of(m.train_shards)},
              {"val_shards", shards_of(m.val_shards)},
              {"world_size", m.world_size},
              {"threads", m.threads},
              {"pending_gradients", m.pending_gradients},
              {"config_hash", m.config_hash},
              {"build", m.build},
              {"log_bytes", m.log_bytes},
              {"metrics_bytes", m.metrics_bytes},
              {"files", files}};
    if (m.val_loss) body["val_loss"] = *m.val_loss;
    return body;
}

// A name of a file in the checkpoint's own folder, nothing that leads out of it.
bool is_plain_name(const std::string& name) {
    const auto plain = [](char c) { return c > ' ' && c < 0x7f && c != '/'; };
    return !name.empty() && name.size() <= 255 && std::ranges::all_of(name, plain) && name != "." &&
           name != "..";
}

[[noreturn]] void fail(const std::string& key, const Json& found, const std::string& allowed) {
    throw UserError(key + " is " + brief_json(found) + "; allowed: " + allowed);
}

int64_t whole(const Json& object, const char* key, int64_t least = 0, int64_t most = INT64_MAX) {
    const Json& value = object.at(key);
    const bool fits = value.is_number_unsigned() && value.get<uint64_t>() >= static_cast<uint64_t>(least) &&
                      value.get<uint64_t>() <= static_cast<uint64_t>(most);
    if (!fits) fail(key, value, "a whole number, " + std::to_string(least) + " .. " + std::to_string(most));
    return value.get<int64_t>();
}

double number(const Json& object, const char* key, double least) {
    const Json& value = object.at(key);
    if (!value.is_number() || value.get<double>() < least)
        fail(key, value, "a number, at least " + Json(least).dump());
    return value.get<double>();
}

std::string text(const Json& object, const char* key, size_t most) {
    const Json& value = object.at(key);
    if (!value.is_string() || value.get_ref<const std::string&>().size() > most)
        fail(key, value, "a text of at most " + std::to_string(most) + " bytes");
    return value.get<std::string>();
}

std::string hash_from(const Json& json) {
    const std::string hash = text(json, "xxh64", 16);
    if (hash.size() != 16 || hash.find_first_not_of("0123456789abcdef") != std::string::npos)
        fail("xxh64", hash, "16 hexadecimal digits");
    return hash;
}

CheckpointManifest::File file_from(const Json& json) {
    return {static_cast<uint64_t>(whole(json, "bytes")), hash_from(json)};
}

std::vector<ShardIdentity> shards_from(const Json& list) {
    if (!list.is_array() || list.size() > kMaxShards)
        throw UserError("shards are " + brief_json(list) + "; allowed: a list of at most " +
                        std::to_string(kMaxShards));
    std::vector<ShardIdentity> shards;
    for (const Json& json : list)
        shards.push_back(
            {text(json, "name", 1000), static_cast<uint64_t>(whole(json, "bytes")), hash_from(json)});
    return shards;
}

CheckpointManifest from_body(const Json& body) {
    constexpr double lowest = std::numeric_limits<double>::lowest();
    CheckpointManifest m;
    m.step = whole(body, "step");
    m.tokens = whole(body, "tokens");
    m.train_time_ms = number(body, "train_time_ms", 0);
    m.train_loss = number(body, "train_loss", lowest);
    if (!body.at("val_loss").is_null()) m.val_loss = number(body, "val_loss", lowest);
    const Json& data = body.at("data");
    m.data = {whole(data, "shard"), whole(data, "document"), whole(data, "step", m.step, m.step)};
    m.train_shards = shards_from(body.at("train_shards"));
    m.val_shards = shards_from(body.at("val_shards"));
    m.world_size = whole(body, "world_size", 1, kMaxRanks);
    m.threads = whole(body, "threads", 1, kMaxThreads);
    body.at("pending_gradients").get_to(m.pending_gradients);
    m.config_hash = text(body, "config_hash", 1000);
    m.build = text(body, "build", 1000);
    m.log_bytes = static_cast<uint64_t>(whole(body, "log_bytes"));
    m.metrics_bytes = static_cast<uint64_t>(whole(body, "metrics_bytes"));
    for (const auto& [name, file] : body.at("files").items()) {
        if (!is_plain_name(name)) throw UserError("file " + in_quotes(name) + " is not in its folder");
        m.files[name] = file_from(file);
    }
    return m;
}

}  // namespace

std::string to_json(const CheckpointManifest& manifest) {
    Json body = body_of(manifest);
    const std::string check = digest(body);
    body["check"] = check;
    return body.dump(1) + "\n";
}

CheckpointManifest read_manifest(const std::filesystem::path& path) {
    if (!files::is_file(path)) throw UserError(path.string() + ": no such file, or not a regular one");
    Json body = read_json_file(path);
    try {
        const auto check = body.at("check").get<std::string>();
        body.erase("check");
        if (digest(body) != check) throw UserError("its check does not fit its content: it is damaged");
        if (body.at("format") != kFormat)
            throw UserError("format " + brief_json(body.at("format")) + "; this program reads " +
                            std::to_string(kFormat));
        return from_body(body);
    } catch (const UserError& error) {
        throw UserError(path.string() + ": " + error.what());
    } catch (const nlohmann::json::exception& error) {
        throw UserError(path.string() + ": not a checkpoint's manifest: " + printable(error.what()));
    }
}

}  // namespace speedrun
