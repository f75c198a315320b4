#include "record/judge/verdict.h"

#include <fmt/core.h>
#include <cmath>
#include <limits>

namespace speedrun {
namespace {

std::string why(const Verdict& v, double significance) {
    if (v.loss.n == 0) return "no complete run";
    if (!std::isfinite(v.loss.mean)) return "a final loss is not a finite number";
    if (v.loss.n == 1) return "one run: no test is possible with fewer than two";
    if (std::isnan(v.test.p))
        return fmt::format("no variance: all {} losses are {:.6g}, and no test is possible", v.loss.n,
                           v.loss.mean);
    if (!(v.loss.mean < v.target))
        return fmt::format("mean loss {:.6f} is not below {:g} (p = {:.6g})", v.loss.mean, v.target,
                           v.test.p);
    const char* const form = v.below_target
                                 ? "mean loss {:.6f} is below {:g} with p = {:.6g} < {:.3g}"
                                 : "mean loss {:.6f} is below {:g}, but p = {:.6g} is not below {:.3g}";
    return fmt::format(fmt::runtime(form), v.loss.mean, v.target, v.test.p, significance);
}

// Rule 4: what the times of a group below the target say.
struct Speed {
    bool faster = false;
    std::string reason;
};

Speed speed_of(const RunGroup& group, const RunGroup* baseline) {
    if (baseline == nullptr) return {false, "no baseline was given that it could be faster than"};
    if (group.hardware.empty() || group.hardware != baseline->hardware)
        return {false, "the baseline's hardware is " +
                           (baseline->hardware.empty() ? "not logged" : baseline->hardware) + ", not " +
                           (group.hardware.empty() ? "logged here" : group.hardware)};
    const Interval time = welch_interval(baseline->final_times_ms(), group.final_times_ms());
    if (!(time.low < time.high))
        return {false, "two runs whose times vary are needed on each side to tell which is faster"};
    const std::string numbers =
        fmt::format("the time differs from the baseline's by {:+.1f} ms (95 %: {:+.1f} to {:+.1f})",
                    time.value, time.low, time.high);
    if (time.high < 0) return {true, numbers};
    return {false, numbers + ", which is not shown to be faster"};
}

}  // namespace

TTest track_test(std::span<const double> losses, double target) {
    TTest test = t_test_less(losses, target);
    if (!std::isfinite(test.t)) test.p = std::numeric_limits<double>::quiet_NaN();
    return test;
}

std::string Verdict::text() const {
    return verdict_text(below_target, record);
}

std::string verdict_text(bool below_target, bool record) {
    if (record) return "record";
    return below_target ? fmt::format("below target, p < {:g}", kSignificance) : "not a record";
}

Verdict judge(const RunGroup& group, double target, const RunGroup* baseline, double significance) {
    Verdict verdict;
    const auto losses = group.final_losses();
    verdict.loss = summarize(losses);
    verdict.time_ms = summarize(group.final_times_ms());
    verdict.target = target;
    verdict.test = track_test(losses, target);
    verdict.below_target = verdict.test.p < significance;
    verdict.reason = why(verdict, significance);
    if (!verdict.below_target) return verdict;
    const Speed speed = speed_of(group, baseline);
    verdict.record = speed.faster;
    verdict.reason += "; " + speed.reason;
    return verdict;
}

}  // namespace speedrun
