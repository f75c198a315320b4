#include "train/checkpoint/manifest.h"

#include "config/json_document.h"
#include "util/error.h"
#include "util/xxhash64.h"

namespace speedrun {
namespace {

constexpr int64_t kFormat = 1;

std::string digest(const Json& body) {
    XxHash64 hash;
    hash.update(body.dump());
    return hex64(hash.digest());
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
              {"world_size", m.world_size},
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
    return !name.empty() && name.find('/') == std::string::npos && name != "." && name != "..";
}

CheckpointManifest from_body(const Json& body) {
    CheckpointManifest m;
    body.at("step").get_to(m.step);
    body.at("tokens").get_to(m.tokens);
    body.at("train_time_ms").get_to(m.train_time_ms);
    body.at("train_loss").get_to(m.train_loss);
    if (!body.at("val_loss").is_null()) m.val_loss = body.at("val_loss").get<double>();
    const Json& data = body.at("data");
    m.data = {data.at("shard").get<int64_t>(), data.at("document").get<int64_t>(),
              data.at("step").get<int64_t>()};
    body.at("world_size").get_to(m.world_size);
    body.at("pending_gradients").get_to(m.pending_gradients);
    body.at("config_hash").get_to(m.config_hash);
    body.at("build").get_to(m.build);
    body.at("log_bytes").get_to(m.log_bytes);
    body.at("metrics_bytes").get_to(m.metrics_bytes);
    for (const auto& [name, file] : body.at("files").items()) {
        if (!is_plain_name(name)) throw UserError("file " + in_quotes(name) + " is not in its folder");
        m.files[name] = {file.at("bytes").get<uint64_t>(), file.at("xxh64").get<std::string>()};
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
    Json body = read_json_file(path);
    try {
        const auto check = body.at("check").get<std::string>();
        body.erase("check");
        if (digest(body) != check) throw UserError("its check does not fit its content: it is damaged");
        if (body.at("format") != kFormat)
            throw UserError("format " + brief_json(body.at("format")) + "; this program reads 1");
        return from_body(body);
    } catch (const UserError& error) {
        throw UserError(path.string() + ": " + error.what());
    } catch (const nlohmann::json::exception& error) {
        throw UserError(path.string() + ": not a checkpoint's manifest: " + printable(error.what()));
    }
}

}  // namespace speedrun
