#include "record/judge/verdict.h"

#include <fmt/core.h>
#include <cmath>

namespace speedrun {
namespace {

std::string why(const Verdict& v) {
    if (v.loss.n == 0) return "no complete run";
    if (std::isnan(v.loss.mean)) return "a final loss is not a number";
    if (v.loss.n == 1) return "one run: no test is possible with fewer than two";
    if (std::isnan(v.test.p)) return fmt::format("no variance, and the mean is the target {:g}", v.target);
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

Verdict judge(const RunGroup& group, double target) {
    Verdict verdict;
    const auto losses = group.final_losses();
    verdict.loss = summarize(losses);
    verdict.time_ms = summarize(group.final_times_ms());
    verdict.target = target;
    verdict.test = t_test_less(losses, target);
    verdict.record = verdict.test.p < kSignificance;
    verdict.reason = why(verdict);
    return verdict;
}

}  // namespace speedrun
