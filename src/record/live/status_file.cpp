#include "record/live/status_file.h"

#include <unistd.h>

#include <array>
#include <chrono>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "util/json_document.h"

namespace speedrun {
namespace {

std::string host_name() {
    std::array<char, 256> name{};
    return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "";
}

}  // namespace

std::string to_json(const RunStatus& status) {
    nlohmann::ordered_json json{{"state", status.state},
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
    json["updated"] =
        std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
            .count();
    return json.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

void write_status(const std::filesystem::path& path, const RunStatus& status) {
    const std::filesystem::path temporary = path.parent_path() / ("." + path.filename().string() + ".tmp");
    std::ofstream file(temporary, std::ios::trunc);
    file << to_json(status);
    file.close();
    std::error_code ignored;
    if (file) std::filesystem::rename(temporary, path, ignored);
}

std::string read_state(const std::filesystem::path& path) {
    std::ifstream file(path);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    const auto json = parse_json_if_valid(text);
    if (!json || !json->is_object()) return "";
    const auto state = json->find("state");
    return state != json->end() && state->is_string() ? state->get<std::string>() : "";
}

}  // namespace speedrun
