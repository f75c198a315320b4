#include "train/reporter.h"

#include <unistd.h>

#include <cstdio>

namespace speedrun {

Reporter::Reporter(const RunDir& dir, const RunDescription& description, int64_t total_steps,
                   double flop_per_token, double gemm_peak)
    : curve_path_(dir.curve()),
      log_(dir.log()),
      metrics_(dir.metrics()),
      progress_(STDOUT_FILENO),
      total_steps_(total_steps),
      flop_per_token_(flop_per_token),
      gemm_peak_(gemm_peak),
      status_path_(dir.status()) {
    log_.header(description);
    state_.total_steps = total_steps;
    status_.state = "running";
    status_.total_steps = total_steps;
    update_status(true);
}

Reporter::Reporter(const RunDir& dir, const Written& written, double train_time_ms, int64_t total_steps,
                   double flop_per_token, double gemm_peak)
    : curve_path_(dir.curve()),
      log_(dir.log(), written.log_bytes),
      metrics_(dir.metrics(), written.metrics_bytes),
      progress_(STDOUT_FILENO),
      total_steps_(total_steps),
      flop_per_token_(flop_per_token),
      gemm_peak_(gemm_peak),
      last_time_ms_(train_time_ms),
      status_path_(dir.status()) {
    for (const Metrics& metrics : read_metrics(dir.metrics(), written.metrics_bytes)) {
        if (metrics.train_loss) curve_.train.push_back({metrics.step, *metrics.train_loss});
        if (metrics.val_loss) curve_.validation.push_back({metrics.step, *metrics.val_loss});
        status_.step = metrics.step;
    }
    curve_.train_time_ms = train_time_ms;
    state_.total_steps = total_steps;
    state_.val_loss = last_validation();
    status_.state = "running";
    status_.total_steps = total_steps;
    status_.val_loss = state_.val_loss;
    update_status(true);
}

void Reporter::update_status(bool now) {
    using namespace std::chrono_literals;
    const auto time = std::chrono::steady_clock::now();
    if (!now && time - status_written_ < 1s) return;
    status_written_ = time;
    write_status(status_path_, status_);
}

void Reporter::saved(const std::filesystem::path& checkpoint) {
    status_.checkpoint = checkpoint.string();
    update_status(true);
}

void Reporter::end(const std::string& state, const std::string& message) {
    status_.state = state;
    status_.message = message;
    status_.eta_seconds.reset();
    update_status(true);
}

void Reporter::note(const std::string& text) {
    log_.line(text);
    progress_.line(text);
}

void Reporter::step(const StepReport& report) {
    log_.step(report.step, total_steps_, report.train_time_ms);
    const double seconds = (report.train_time_ms - last_time_ms_) / 1000;
    last_time_ms_ = report.train_time_ms;
    const double rate = static_cast<double>(report.step_tokens) / seconds;
    state_.step = report.step;
    state_.train_loss = report.train_loss;
    state_.tokens_per_second = rate;
    state_.peak_share = rate * flop_per_token_ / gemm_peak_;
    state_.eta_seconds = report.train_time_ms / 1000 / static_cast<double>(report.step) *
                         static_cast<double>(total_steps_ - report.step);
    metrics_.write({.step = report.step,
                    .tokens = report.tokens,
                    .train_time_ms = report.train_time_ms,
                    .train_loss = report.train_loss,
                    .val_loss = {},
                    .lr = report.lr_scale,
                    .tokens_per_second = rate,
                    .peak_share = state_.peak_share,
                    .diagnostics = report.diagnostics});
    curve_.train.push_back({report.step, report.train_loss});
    curve_.train_time_ms = report.train_time_ms;
    progress_.update(state_);
    status_.step = report.step;
    status_.train_time_ms = report.train_time_ms;
    status_.train_loss = report.train_loss;
    status_.eta_seconds = state_.eta_seconds;
    update_status(false);
}

void Reporter::validation(int64_t step, double val_loss, double train_time_ms, int64_t tokens) {
    log_.validation(step, total_steps_, val_loss, train_time_ms);
    progress_.line(validation_line(step, total_steps_, val_loss, train_time_ms));
    state_.val_loss = val_loss;
    status_.val_loss = val_loss;
    update_status(true);
    metrics_.write({.step = step,
                    .tokens = tokens,
                    .train_time_ms = train_time_ms,
                    .train_loss = {},
                    .val_loss = val_loss,
                    .lr = {},
                    .tokens_per_second = {},
                    .peak_share = {},
                    .diagnostics = {}});
    curve_.validation.push_back({step, val_loss});
}

void Reporter::data(std::span<const DataShard> shards) {
    log_.data(shards);
}

void Reporter::finish(const std::string& title, const PeakMemory& peak) {
    progress_.finish();
    log_.peak_memory(peak.allocated, peak.reserved);
    curve_.title = title;
    write_curve(curve_, curve_path_);
    std::fputs(curve_text(curve_).c_str(), stdout);
    std::fflush(stdout);
}

std::optional<double> Reporter::last_validation() const {
    if (curve_.validation.empty()) return std::nullopt;
    return curve_.validation.back().loss;
}

}  // namespace speedrun
