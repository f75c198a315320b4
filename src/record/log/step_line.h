#pragma once
#include <cstdint>
#include <optional>
#include <string_view>

namespace speedrun {

// One line of a log that shows progress, in any of the forms the track has had:
//   step:12/1390 train_time:422ms step_avg:35.17ms
//   step:12/5100 train_loss:6.6573 train_time:359ms step_avg:nanms
//   step:125/2900 val_loss:4.46544 val_ema_loss:4.5 train_time:96.315s step_avg:770.52ms ema_beta:0
//   s:12 tel:4.4310          (a validation)
//   s:12 trl:4.5 lr:0.001 norm:0.3
struct StepLine {
    int64_t step = 0;
    std::optional<int64_t> scheduled_steps;
    std::optional<double> val_loss, val_ema_loss, train_loss;
    std::optional<double> train_time_ms, step_avg_ms;  // NaN as logged
};

// nullopt where `line` is none: a field is missing or malformed, a number does not fit its type, a time is
// negative.
std::optional<StepLine> parse_step_line(std::string_view line);

// Whether `line`, read or not, means to be a step line: it begins as one.
bool begins_like_step_line(std::string_view line);

// Whether a line of the log's body holds step:n/N, a validation loss or a train_time somewhere.
bool mentions_step(std::string_view line);

// "trial:3/25 seed:2", which comes before each of several runs in a file.
struct TrialLine {
    std::optional<uint64_t> seed;
};
std::optional<TrialLine> parse_trial_line(std::string_view line);

}  // namespace speedrun
