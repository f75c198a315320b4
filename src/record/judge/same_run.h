#pragma once
#include "record/log/run_log.h"

namespace speedrun {

// Whether two logs show one run: the numbers of all lines are equal, however a log was copied; or all
// validations of the one that shows fewer stand in the other as well. Times may differ there, as they do
// where the same bits were computed twice, if kTellingValidations losses agree.
bool same_run(const Run& a, const Run& b);

// Losses of two runs of the track vary by 0.0013, so that two of four decimals are equal with probability
// 1e-4 / (2 sqrt(pi) 0.0013) = 0.022, and three of them with 1e-5.
inline constexpr size_t kTellingValidations = 3;

}  // namespace speedrun
