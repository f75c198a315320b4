#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "util/line_file.h"

namespace speedrun {

// One line of metrics.jsonl: a finished training step (train_loss) or a validation (val_loss). Absent values
// are left out of the line; NaN and infinities are written as the strings "nan", "inf", "-inf".
struct Metrics {
    int64_t step = 0;                            // steps finished
    int64_t tokens = 0;                          // training tokens consumed so far
    double train_time_ms = 0;                    // the track's clock
    std::optional<double> train_loss, val_loss;  // nats per token
    std::optional<double> lr;                    // multiplier of the learning rates in this step
    std::optional<double> tokens_per_second,
        peak_share;                             // of this step; share of the measured GEMM peak, 0..1
    std::map<std::string, double> diagnostics;  // "update_rms/attn.3.q": ...; written under "diagnostics"
};

// One JSON object without line breaks.
std::string to_json_line(const Metrics& metrics);

// The first `bytes` of a metrics file, without diagnostics. Lines that are none are skipped.
std::vector<Metrics> read_metrics(const std::filesystem::path& path, uint64_t bytes);

class MetricsFile {
  public:
    // Creates `path`. Both members throw UserError where the file cannot be written.
    explicit MetricsFile(const std::filesystem::path& path) : file_(path) {}
    // Goes on with the metrics of an earlier part of the run after their first `keep` bytes.
    MetricsFile(const std::filesystem::path& path, uint64_t keep) : file_(path, keep) {}
    void write(const Metrics& metrics) { file_.line(to_json_line(metrics)); }

    uint64_t bytes() const { return file_.bytes(); }

  private:
    LineFile file_;
};

}  // namespace speedrun
