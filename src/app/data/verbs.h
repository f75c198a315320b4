#pragma once

namespace speedrun {

// The parts of the `data` verb; argv[0] is the part's name.
int run_data_tokenize(int argc, char** argv);
int run_data_inspect(int argc, char** argv);
int run_data_baseline(int argc, char** argv);
int run_data_bench(int argc, char** argv);

}  // namespace speedrun
