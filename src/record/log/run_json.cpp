#include "record/log/run_json.h"

#include <cmath>

#include "record/log/stalls.h"
#include "util/json_document.h"

namespace speedrun {
namespace {

template <typename T>
Json or_null(const std::optional<T>& value) {
    return value ? Json(*value) : Json(nullptr);
}

Json text_or_null(const std::string& text) {
    return text.empty() ? Json(nullptr) : Json(text);
}

Json steps_of(const std::vector<Stall>& stalls) {
    Json steps = Json::array();
    for (const Stall& stall : stalls) steps.push_back(stall.step);
    return steps;
}

Json stalls_json(const Stalls& stalls) {
    return {{"count", stalls.hiccups.size()},
            {"lost_ms", stalls.lost_ms},
            {"steps", steps_of(stalls.hiccups)},
            {"periodic",
             {{"every", or_null(stalls.period)},
              {"count", stalls.periodic.size()},
              {"extra_ms", stalls.periodic_ms},
              {"steps", steps_of(stalls.periodic)}}},
            {"median_step_ms", finite_or_null(stalls.median_step_ms)},
            {"train_time_without_ms", finite_or_null(stalls.time_without_ms)}};
}

Json validations_json(const Run& run) {
    Json list = Json::array();
    for (const Validation& v : run.validations)
        list.push_back({{"step", v.step},
                        {"val_loss", finite_or_null(v.loss)},
                        {"val_ema_loss", finite_or_null(v.ema_loss)},
                        {"train_time_ms", finite_or_null(v.train_time_ms)}});
    return list;
}

Json data_json(const Run& run) {
    Json list = Json::array();
    for (const DataShard& shard : run.data)
        list.push_back({{"use", shard.use == DataShard::Use::training ? "training" : "validation"},
                        {"path", shard.path},
                        {"bytes", shard.bytes},
                        {"sha256", shard.sha256}});
    return list;
}

Json pairs_json(const std::vector<std::pair<std::string, std::string>>& pairs) {
    Json object = Json::object();
    for (const auto& [name, value] : pairs) object[name] = value;
    return object;
}

}  // namespace

Json finite_or_null(double value) {
    return std::isfinite(value) ? Json(value) : Json(nullptr);
}

std::string dump_json(const Json& json) {
    return escape_controls(json.dump(2, ' ', false, Json::error_handler_t::replace));
}

Json run_json(const RunLog& log, size_t index) {
    const Run& run = log.runs.at(index);
    return {{"path", log.path.string()},
            {"run", index},
            {"final_step", run.final_step},
            {"scheduled_steps", or_null(run.scheduled_steps)},
            {"complete", run.complete()},
            {"incomplete_reason", text_or_null(run.incomplete_reason())},
            {"val_loss", run.last_validation ? finite_or_null(run.last_validation->loss) : Json(nullptr)},
            {"train_time_ms", finite_or_null(run.train_time_ms)},
            {"step_avg_ms", finite_or_null(run.step_avg_ms)},
            {"seed", or_null(run.seed)},
            {"peak_memory_mib", run.peak_memory_mib > 0 ? Json(run.peak_memory_mib) : Json(nullptr)},
            {"hardware", text_or_null(run.header.hardware.text())},
            {"driver", text_or_null(run.header.hardware.driver)},
            {"cuda", text_or_null(run.header.hardware.cuda)},
            {"versions", pairs_json(run.header.versions)},
            {"fields", pairs_json(run.header.fields)},
            {"source_hash", text_or_null(run.header.source_hash)},
            {"data", data_json(run)},
            {"stalls", stalls_json(find_stalls(run))},
            {"validations", validations_json(run)}};
}

}  // namespace speedrun
