#pragma once
#include <cxxopts.hpp>

namespace speedrun {

// `bench checkpoint`: bytes/s of saving and loading a run's whole state, against those of the disk itself.
int bench_checkpoint(const cxxopts::ParseResult& options);

}  // namespace speedrun
