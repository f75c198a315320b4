#pragma once
#include <cxxopts.hpp>

namespace speedrun {

// The exit code of a verb that judges.
constexpr int judged(bool record) {
    return record ? 0 : 1;
}

// --track and --target, and the loss to be below that they mean. UserError for anything that is none.
void add_target_options(cxxopts::Options& options);
double target_of(const cxxopts::ParseResult& args);

}  // namespace speedrun
