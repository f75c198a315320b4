#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace speedrun {

// When an attempt may end before its last run. It is stated before the first: who looks at the results and
// decides then finds records that are none.
struct StopRule {
    int64_t futility_from = 0;      // from so many runs on: when their mean is not below the target; 0: never
    int64_t significance_from = 0;  // from so many runs on: when they are below it beyond doubt; 0: never
    bool operator==(const StopRule&) const = default;
};

// "none", "futility:3", "significant:4", or both with a comma. Giving up can make no false record. Each look
// for success is a test, so with significant:K all of them, the last included, are at 0.01 / (runs - K + 1)
// (Bonferroni), and the whole attempt at 0.01. UserError for anything else, and for K < 2 or > runs.
StopRule parse_stop_rule(const std::string& text, int64_t runs);
std::string stop_rule_text(const StopRule& rule);               // as parse_stop_rule reads it
std::string explain(const StopRule& rule, int64_t runs);        // a sentence for readers
double significance_level(const StopRule& rule, int64_t runs);  // p must be below it

// Why the attempt ends after these runs; nullopt where it goes on. A loss that is not a number ends it: its
// mean will never be below the target.
std::optional<std::string> reason_to_stop(const StopRule& rule, std::span<const double> losses, double target,
                                          int64_t runs);

}  // namespace speedrun
