#include "record/judge/stop_rule.h"

#include <fmt/core.h>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <string_view>

#include "record/judge/statistics.h"
#include "record/judge/verdict.h"
#include "util/error.h"

namespace speedrun {
namespace {

[[noreturn]] void fail(const std::string& text, int64_t runs) {
    throw UserError(
        "stop rule \"" + text +
        "\": allowed are none, futility:K, significant:K, or both with a comma; K from 2 to the " +
        std::to_string(runs) + " runs");
}

}  // namespace

StopRule parse_stop_rule(const std::string& text, int64_t runs) {
    StopRule rule;
    if (text == "none") return rule;
    for (std::string_view rest = text;;) {
        const std::string_view part = rest.substr(0, rest.find(','));
        const size_t colon = part.find(':');
        if (colon == std::string_view::npos) fail(text, runs);
        const std::string_view name = part.substr(0, colon), count = part.substr(colon + 1);
        int64_t& from = name == "futility" ? rule.futility_from : rule.significance_from;
        if ((name != "futility" && name != "significant") || from != 0) fail(text, runs);
        const auto [end, error] = std::from_chars(count.data(), count.data() + count.size(), from);
        if (error != std::errc() || end != count.data() + count.size() || from < 2 || from > runs)
            fail(text, runs);
        if (part.size() == rest.size()) return rule;
        rest.remove_prefix(part.size() + 1);
    }
}

std::string stop_rule_text(const StopRule& rule) {
    std::string text;
    if (rule.futility_from > 0) text = "futility:" + std::to_string(rule.futility_from);
    if (rule.significance_from > 0)
        text += (text.empty() ? "" : ",") + ("significant:" + std::to_string(rule.significance_from));
    return text.empty() ? "none" : text;
}

std::string explain(const StopRule& rule, int64_t runs) {
    std::string text;
    if (rule.futility_from > 0)
        text += "after " + std::to_string(rule.futility_from) +
                " or more runs the attempt is given up when their mean loss is not below the target";
    if (rule.significance_from > 0)
        text +=
            (text.empty() ? "" : "; ") + ("after " + std::to_string(rule.significance_from)) +
            fmt::format(" or more runs it ends when p < {:.3g}, the level of every look, the last included",
                        significance_level(rule, runs));
    return text.empty() ? "all " + std::to_string(runs) + " runs are made, whatever they give" : text;
}

double significance_level(const StopRule& rule, int64_t runs) {
    if (rule.significance_from == 0) return kSignificance;
    return kSignificance / static_cast<double>(runs - rule.significance_from + 1);
}

std::optional<std::string> reason_to_stop(const StopRule& rule, std::span<const double> losses, double target,
                                          int64_t runs) {
    const auto n = static_cast<int64_t>(losses.size());
    if (std::ranges::any_of(losses, [](double loss) { return !std::isfinite(loss); }))
        return "a final loss is not a number";
    if (n >= runs) return std::nullopt;
    const double mean = summarize(losses).mean;
    if (rule.futility_from > 0 && n >= rule.futility_from && !(mean < target))
        return fmt::format("futility: after {} runs the mean loss {:.6f} is not below {:g}", n, mean, target);
    const double p = track_test(losses, target).p, level = significance_level(rule, runs);
    if (rule.significance_from > 0 && n >= rule.significance_from && p < level)
        return fmt::format("significant: after {} runs p = {:.6g} < {:.3g}", n, p, level);
    return std::nullopt;
}

}  // namespace speedrun
