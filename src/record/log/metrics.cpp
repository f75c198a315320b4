#include "record/log/metrics.h"

#include <cmath>
#include <fstream>

#include "util/json_document.h"

namespace speedrun {
namespace {

// JSON has no NaN and no infinity; a diverging run is where its numbers matter most.
Json number(double value) {
    if (std::isnan(value)) return "nan";
    if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
    return value;
}

std::optional<double> number_in(const Json& json, const char* key) {
    const auto found = json.find(key);
    if (found == json.end() || !found->is_number()) return std::nullopt;
    return found->get<double>();
}

}  // namespace

std::vector<Metrics> read_metrics(const std::filesystem::path& path, uint64_t bytes) {
    std::vector<Metrics> found;
    std::ifstream file(path);
    uint64_t at = 0;
    for (std::string line; at < bytes && std::getline(file, line);) {
        at += line.size() + 1;
        const Json json = parse_json_if_valid(line).value_or(nullptr);
        if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer()) continue;
        Metrics metrics;
        metrics.step = json["step"].get<int64_t>();
        metrics.train_time_ms = number_in(json, "train_time_ms").value_or(0);
        metrics.train_loss = number_in(json, "train_loss");
        metrics.val_loss = number_in(json, "val_loss");
        found.push_back(std::move(metrics));
    }
    return found;
}

std::string to_json_line(const Metrics& metrics) {
    Json json{{"step", metrics.step}};
    const auto put = [&json](const char* key, const std::optional<double>& value) {
        if (value) json[key] = number(*value);
    };
    put("train_loss", metrics.train_loss);
    put("val_loss", metrics.val_loss);
    put("train_time_ms", metrics.train_time_ms);
    json["tokens"] = metrics.tokens;
    put("lr", metrics.lr);
    put("tokens_per_second", metrics.tokens_per_second);
    put("peak_share", metrics.peak_share);
    for (const auto& [name, value] : metrics.diagnostics) json["diagnostics"][name] = number(value);
    return json.dump();
}

}  // namespace speedrun
