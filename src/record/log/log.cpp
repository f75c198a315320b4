#include "record/log/log.h"

#include <fmt/core.h>
#include <algorithm>
#include <ctime>

#include "util/shell_words.h"

namespace speedrun {
namespace {

const std::string kRule(100, '=');

double step_average(int64_t step, double train_time_ms) {
    return train_time_ms / static_cast<double>(std::max<int64_t>(step, 1));
}

void field(LineFile& file, const std::string& name, const std::string& value) {
    if (!value.empty()) file.line(one_line(name + ": " + value));
}

void shards(LineFile& file, const std::string& name, const std::vector<std::string>& paths) {
    if (paths.empty()) return;
    file.line(name + ": " + std::to_string(paths.size()));
    for (const auto& path : paths) file.line(one_line("  " + path));
}

}  // namespace

void TrackLog::header(const RunDescription& run) {
    if (!run.config_json.empty()) file_.line(run.config_json);
    file_.line(kRule);
    field(file_, "command", run.command_line);
    if (!run.date.empty()) file_.line(run.date);
    field(file_, "config sha256", run.config_hash);
    field(file_, "commit", run.commit);
    field(file_, "build", run.build);
    for (const auto& [name, version] : run.libraries) field(file_, name, version);
    shards(file_, "training shards", run.train_shards);
    shards(file_, "validation shards", run.val_shards);
    file_.line("seed: " + std::to_string(run.seed));
    file_.line("world size: " + std::to_string(run.world_size));
    if (run.threads > 0) file_.line("threads: " + std::to_string(run.threads));
    if (!run.hardware.empty()) file_.line(run.hardware);
    file_.line(kRule);
}

void TrackLog::step(int64_t step, int64_t total_steps, double train_time_ms) {
    file_.line(step_line(step, total_steps, train_time_ms));
}

void TrackLog::validation(int64_t step, int64_t total_steps, double val_loss, double train_time_ms) {
    file_.line(validation_line(step, total_steps, val_loss, train_time_ms));
}

void TrackLog::peak_memory(int64_t allocated_bytes, int64_t reserved_bytes) {
    file_.line(peak_memory_line(allocated_bytes, reserved_bytes));
}

void TrackLog::data(std::span<const DataShard> shards) {
    for (const DataShard& shard : shards) file_.line(one_line(data_shard_line(shard)));
}

std::string log_date(std::chrono::system_clock::time_point time) {
    const std::time_t seconds = std::chrono::system_clock::to_time_t(time);
    std::tm local{};
    ::localtime_r(&seconds, &local);
    char buffer[64];
    return {buffer, std::strftime(buffer, sizeof(buffer), "%a %b %d %H:%M:%S %Y", &local)};
}

std::string step_line(int64_t step, int64_t total_steps, double train_time_ms) {
    return fmt::format("step:{}/{} train_time:{:.0f}ms step_avg:{:.2f}ms", step, total_steps, train_time_ms,
                       step_average(step, train_time_ms));
}

std::string validation_line(int64_t step, int64_t total_steps, double val_loss, double train_time_ms) {
    return fmt::format("step:{}/{} val_loss:{:.4f} train_time:{:.0f}ms step_avg:{:.2f}ms", step, total_steps,
                       val_loss, train_time_ms, step_average(step, train_time_ms));
}

std::string peak_memory_line(int64_t allocated_bytes, int64_t reserved_bytes) {
    constexpr int64_t mib = 1024 * 1024;
    return fmt::format("peak memory allocated: {} MiB reserved: {} MiB", allocated_bytes / mib,
                       reserved_bytes / mib);
}

}  // namespace speedrun
