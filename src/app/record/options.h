#pragma once
#include <cxxopts.hpp>

namespace speedrun {

// --track and --target, and the loss to be below that they mean. UserError for anything that is none.
void add_target_options(cxxopts::Options& options);
double target_of(const cxxopts::ParseResult& args);

}  // namespace speedrun
