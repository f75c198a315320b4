#include "train/reporter.h"

#include <unistd.h>

#include <string>

#include "util/shell_words.h"

namespace speedrun {

Reporter::Reporter(const RunDir& dir, const RunDescription& description, int64_t total_steps,
                   double flop_per_token, double gemm_peak)
    : dir_(dir),
      log_(dir.log()),
      metrics_(dir.metrics()),
      progress_(STDOUT_FILENO),
      total_steps_(total_steps),
      flop_per_token_(flop_per_token),
      gemm_peak_(gemm_peak) {
    log_.header(description);
    state_.total_steps = total_steps;
    status_.state = "running";
    status_.total_steps = total_steps;
    update_status(true);
}

Reporter::Reporter(const RunDir& dir, const RunDescription& description, const Written& written,
                   double train_time_ms, int64_t total_steps, double flop_per_token, double gemm_peak)
    : dir_(dir),
      log_(dir.log(), written.log_bytes),
      metrics_(dir.metrics(), written.metrics_bytes),
      progress_(STDOUT_FILENO),
      total_steps_(total_steps),
      flop_per_token_(flop_per_token),
      gemm_peak_(gemm_peak),
      last_time_ms_(train_time_ms) {
    const Written left = this->written();
    if (left.log_bytes == 0) log_.header(description);
    note_what_is_lost(written, left);
    for (const Metrics& metrics : read_metrics(dir.metrics(), metrics_.bytes())) {
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
    // Another run may have begun in a directory of this name. Where this one's is gone, so are its results.
    if (dir_.folder().in_place())
        write_status(dir_.status(), status_);
    else
        dir_.folder().where();
}

void Reporter::note_what_is_lost(const Written& before, const Written& left) {
    const auto compare = [&](const char* name, uint64_t had, uint64_t has) {
        if (has < had)
            note(std::string(name) + " had " + std::to_string(had) + " bytes at the checkpoint, of which " +
                 std::to_string(has) + " are left: lines are missing");
    };
    compare(run_files::log, before.log_bytes, left.log_bytes);
    compare(run_files::metrics, before.metrics_bytes, left.metrics_bytes);
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
    const std::string line = one_line(text);
    log_.line(line);
    progress_.line(line);
}

void Reporter::tell(const std::string& text) {
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
    write_curve(curve_, dir_.curve());
    std::string text = curve_text(curve_);
    if (text.ends_with('\n')) text.pop_back();
    tell(text);
}

std::optional<double> Reporter::last_validation() const {
    if (curve_.validation.empty()) return std::nullopt;
    return curve_.validation.back().loss;
}

}  // namespace speedrun
