#pragma once
#include <cstdint>
#include <cxxopts.hpp>
#include <initializer_list>
#include <optional>

#include "record/judge/step_rule.h"
#include "record/judge/track.h"

namespace speedrun {

// The exit code of a verb that judges.
constexpr int judged(bool record) {
    return record ? 0 : 1;
}

// --track and --target. Without --target the loss to be below is the track's. UserError for anything that is
// none.
void add_target_options(cxxopts::Options& options);
const Track& track_of(const cxxopts::ParseResult& args);
double target_of(const cxxopts::ParseResult& args);
// The same for a verb that knows no other rule than that of the tracks that count time; UserError for others.
double timed_target_of(const cxxopts::ParseResult& args);

// --at-step and --ema, for a track that counts steps; `option` names one of them.
void add_step_options(cxxopts::Options& options);
std::optional<int64_t> step_of(const cxxopts::ParseResult& args, const char* option);
Readout readout_of(const cxxopts::ParseResult& args, const char* option);

// UserError where one of `options` is given, which the rule of --track has no use for.
void refuse_options(const cxxopts::ParseResult& args, std::initializer_list<const char*> options);

}  // namespace speedrun
