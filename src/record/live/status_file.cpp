#include "record/live/status_file.h"

#include <unistd.h>

#include <array>
#include <chrono>
#include <cmath>

#include "util/atomic_file.h"
#include "util/error.h"
#include "util/files.h"
#include "util/json_document.h"

namespace speedrun {
namespace {

std::string host_name() {
    std::array<char, 256> name{};
    return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "";
}

// Seconds since 1970.
int64_t now() {
    return std::chrono::duration_cast<std::chrono::seconds>(
               std::chrono::system_clock::now().time_since_epoch())
        .count();
}

std::string text_of(const Json& json) {
    return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

// An empty object where the file holds none.
Json read_object(const std::filesystem::path& path) {
    constexpr uint64_t most_bytes = 1 << 20;
    try {
        const auto json = parse_json_if_valid(files::read(path, most_bytes));
        if (json && json->is_object()) return *json;
    } catch (const UserError&) {
    }
    return Json::object();
}

std::string state_of(const Json& json) {
    const auto state = json.find("state");
    return state != json.end() && state->is_string() ? state->get<std::string>() : "";
}

void try_write(const std::filesystem::path& path, const std::string& text) {
    try {
        AtomicFile file(path, AtomicFile::Sync::no);
        file.write(text);
        file.commit();
    } catch (const UserError&) {  // a full disk must not end a run over its status
    }
}

}  // namespace

std::string to_json(const RunStatus& status) {
    Json json{{"state", status.state},
              {"step", status.step},
              {"total_steps", status.total_steps},
              {"train_time_ms", status.train_time_ms}};
    const auto put = [&json](const char* key, const std::optional<double>& value) {
        if (value && std::isfinite(*value)) json[key] = *value;
    };
    put("train_loss", status.train_loss);
    put("val_loss", status.val_loss);
    put("eta_seconds", status.eta_seconds);
    if (!status.checkpoint.empty()) json["checkpoint"] = status.checkpoint;
    if (!status.message.empty()) json["message"] = status.message;
    json["process"] = ::getpid();
    json["host"] = host_name();
    json["updated"] = now();
    return text_of(json);
}

void write_status(const std::filesystem::path& path, const RunStatus& status) {
    try_write(path, to_json(status));
}

void write_failure(const std::filesystem::path& path, const std::string& message) {
    Json json = read_object(path);
    if (state_of(json) != "running") return;
    json["state"] = "failed";
    json["message"] = message;
    json.erase("eta_seconds");
    json["updated"] = now();
    try_write(path, text_of(json));
}

std::string read_state(const std::filesystem::path& path) {
    return state_of(read_object(path));
}

}  // namespace speedrun
