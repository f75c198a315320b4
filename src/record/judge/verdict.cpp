#include "record/judge/verdict.h"

#include <fmt/core.h>
#include <cmath>
#include <limits>

namespace speedrun {
namespace {

std::string why(const Verdict& v) {
    if (v.loss.n == 0) return "no complete run";
    if (!std::isfinite(v.loss.mean)) return "a final loss is not a finite number";
    if (v.loss.n == 1) return "one run: no test is possible with fewer than two";
    if (std::isnan(v.test.p))
        return fmt::format("no variance: all {} losses are {:.6g}, and no test is possible", v.loss.n,
                           v.loss.mean);
    if (!(v.loss.mean < v.target))
        return fmt::format("mean loss {:.6f} is not below {:g} (p = {:.6g})", v.loss.mean, v.target,
                           v.test.p);
    if (v.record)
        return fmt::format("mean loss {:.6f} is below {:g} with p = {:.6g} < {:g}", v.loss.mean, v.target,
                           v.test.p, kSignificance);
    return fmt::format("mean loss {:.6f} is below {:g}, but p = {:.6g} is not below {:g}", v.loss.mean,
                       v.target, v.test.p, kSignificance);
}

}  // namespace

TTest track_test(std::span<const double> losses, double target) {
    TTest test = t_test_less(losses, target);
    if (!std::isfinite(test.t)) test.p = std::numeric_limits<double>::quiet_NaN();
    return test;
}

Verdict judge(const RunGroup& group, double target) {
    Verdict verdict;
    const auto losses = group.final_losses();
    verdict.loss = summarize(losses);
    verdict.time_ms = summarize(group.final_times_ms());
    verdict.target = target;
    verdict.test = track_test(losses, target);
    verdict.record = verdict.test.p < kSignificance;
    verdict.reason = why(verdict);
    return verdict;
}

}  // namespace speedrun
