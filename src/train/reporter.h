#pragma once
#include <chrono>
#include <optional>
#include <span>
#include <vector>

#include "plan/memory_check.h"
#include "record/live/progress.h"
#include "record/live/run_dir.h"
#include "record/live/status_file.h"
#include "record/log/log.h"
#include "record/log/metrics.h"
#include "record/report/curve.h"

namespace speedrun {

// A finished training step.
struct StepReport {
    int64_t step = 0;         // steps finished, counting this one
    int64_t tokens = 0;       // training tokens so far
    int64_t step_tokens = 0;  // of this step
    double train_time_ms = 0, train_loss = 0, lr_scale = 0;
    std::map<std::string, double> diagnostics;
};

// Everything a run tells: the track's log, metrics.jsonl, the progress line, and the curve at the end.
class Reporter {
  public:
    // flop_per_token and gemm_peak (FLOP/s) turn tokens/s into a share of the peak.
    // `dir` must live longer.
    Reporter(const RunDir& dir, const RunDescription& description, int64_t total_steps, double flop_per_token,
             double gemm_peak);

    // How far the log and the metrics of a run had come.
    struct Written {
        uint64_t log_bytes = 0, metrics_bytes = 0;
    };
    // Goes on with what an earlier part of the run has written up to there; what follows is cut off. Where
    // less is there, as after a power loss, it goes on with a note; a log of which nothing is left gets its
    // header again.
    Reporter(const RunDir& dir, const RunDescription& description, const Written& written,
             double train_time_ms, int64_t total_steps, double flop_per_token, double gemm_peak);
    Written written() const { return {log_.bytes(), metrics_.bytes()}; }

    void note(const std::string& text);  // a line for the log and the terminal
    void tell(const std::string& text);  // for the terminal alone
    void step(const StepReport& report);
    void validation(int64_t step, double val_loss, double train_time_ms, int64_t tokens);
    void data(std::span<const DataShard> shards);  // what the run has read, into the log
    // Peak memory into the log, the curve into the run directory and onto the terminal.
    void finish(const std::string& title, const PeakMemory& peak);

    void saved(const std::filesystem::path& checkpoint);  // for the status
    // The last word in status.json: "finished", "interrupted", "diverged" or "failed".
    void end(const std::string& state, const std::string& message = "");

    std::optional<double> last_validation() const;

  private:
    void note_what_is_lost(const Written& before, const Written& left);

    const RunDir& dir_;
    TrackLog log_;
    MetricsFile metrics_;
    Progress progress_;
    int64_t total_steps_;
    double flop_per_token_, gemm_peak_;
    double last_time_ms_ = 0;
    void update_status(bool now);

    RunStatus status_;
    std::chrono::steady_clock::time_point status_written_{};
    ProgressState state_;
    LossCurve curve_;
};

}  // namespace speedrun
