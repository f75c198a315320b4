#pragma once

namespace speedrun {

// The verbs of the program. argv[0] is the verb, the rest are its options; "--help" prints them and returns
// 0. They return the exit code and throw UserError or InternalError.
int run_train(int argc, char** argv);
int run_eval(int argc, char** argv);
int run_generate(int argc, char** argv);
int run_data(int argc, char** argv);
int run_plan(int argc, char** argv);
int run_config(int argc, char** argv);
int run_bench(int argc, char** argv);
int run_record(int argc, char** argv);

}  // namespace speedrun
