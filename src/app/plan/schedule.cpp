#include <fmt/core.h>
#include <cmath>
#include <nlohmann/json.hpp>

#include "app/plan/run_plan.h"
#include "util/text_table.h"

namespace speedrun {
namespace {

bool same_stage(const StepSettings& a, const StepSettings& b) {
    return a.batch_tokens == b.batch_tokens && a.max_seq_len == b.max_seq_len &&
           a.window_short == b.window_short && a.window_long == b.window_long &&
           a.yarn_window == b.yarn_window && a.trains == b.trains;
}

// Whether a number moves from a to b otherwise than it moves from b to c: a ramp begins or ends, or it jumps.
// Ramps are linear, so the two differ by rounding or by much more.
bool turns(double a, double b, double c) {
    return std::abs((b - a) - (c - b)) > 1e-9;
}

// Steps at which something begins to be otherwise than in the step before.
std::vector<StepSettings> changes(const Config& config) {
    const int64_t total = config.schedule.total_steps();
    std::vector<StepSettings> found{settings_at(config, 0)};
    StepSettings before = found.front(), now = before;
    for (int64_t step = 1; step <= total; ++step) {
        const StepSettings next = settings_at(config, step);
        const bool ramp = step > 1 && (turns(before.lr_scale, now.lr_scale, next.lr_scale) ||
                                       turns(before.muon_momentum, now.muon_momentum, next.muon_momentum));
        if (ramp && found.back().step != now.step) found.push_back(now);
        if (!same_stage(now, next)) found.push_back(next);
        before = now;
        now = next;
    }
    return found;
}

std::vector<StepSettings> selected(const Config& config, int64_t every) {
    if (every == 0) return changes(config);
    std::vector<StepSettings> steps;
    for (int64_t step = 0; step <= config.schedule.total_steps(); step += every)
        steps.push_back(settings_at(config, step));
    return steps;
}

}  // namespace

std::string schedule_text(const Config& config, int64_t every) {
    const auto& eval = config.schedule.eval;
    const int64_t adam = config.optimizer.adam.every_n_steps;
    std::string text =
        std::to_string(config.schedule.total_steps()) + " steps; Adam updates " +
        (adam == 1 ? "in every one"
                   : "where step % " + std::to_string(adam) + " == " + std::to_string(adam - 1)) +
        "; validation " +
        (eval.every > 0 ? "before every " + std::to_string(eval.every) + "th step and " : "") +
        (eval.late_every > 0
             ? fmt::format("every {}th from {:g} of the run on and ", eval.late_every, eval.late_from)
             : "") +
        "at the end\n";
    TextTable rows{{"step", "batch tokens", "longest document", "window short", "window long", "yarn window",
                    "lr scale", "momentum", "adam", "validates"}};
    for (const StepSettings& s : selected(config, every))
        rows.push_back({std::to_string(s.step) + (s.trains ? "" : " (end)"), std::to_string(s.batch_tokens),
                        std::to_string(s.max_seq_len), std::to_string(s.window_short),
                        std::to_string(s.window_long), std::to_string(s.yarn_window),
                        fmt::format("{:.6f}", s.lr_scale), fmt::format("{:.6f}", s.muon_momentum),
                        s.adam_steps ? "yes" : "-", s.validate ? "yes" : "-"});
    return text + plain_table(rows);
}

nlohmann::ordered_json schedule_json(const Config& config, int64_t every) {
    nlohmann::ordered_json steps = nlohmann::ordered_json::array();
    for (const StepSettings& s : selected(config, every))
        steps.push_back({{"step", s.step},
                         {"batch_tokens", s.batch_tokens},
                         {"max_seq_len", s.max_seq_len},
                         {"window_short", s.window_short},
                         {"window_long", s.window_long},
                         {"yarn_window", s.yarn_window},
                         {"lr_scale", s.lr_scale},
                         {"matrix_lr_scale", s.matrix_lr_scale},
                         {"muon_momentum", s.muon_momentum},
                         {"lookahead", s.lookahead},
                         {"readout", s.readout},
                         {"adam_steps", s.adam_steps},
                         {"validate", s.validate},
                         {"trains", s.trains}});
    return steps;
}

}  // namespace speedrun
