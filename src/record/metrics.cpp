#include "record/metrics.h"

#include <cmath>
#include <nlohmann/json.hpp>

namespace speedrun {
namespace {

using Json = nlohmann::ordered_json;

// JSON has no NaN and no infinity; a diverging run is where its numbers matter most.
Json number(double value) {
    if (std::isnan(value)) return "nan";
    if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
    return value;
}

}  // namespace

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
