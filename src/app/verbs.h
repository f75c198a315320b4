#pragma once

namespace speedrun {

// What the words of a command line run, each in the file that the words name: `speedrun bench step` is
// bench/step.cpp. argv[0] is the last of these words, the rest are its options; "--help" prints them and
// returns 0. They return the exit code and throw UserError or InternalError.
int run_train(int argc, char** argv);
int run_eval(int argc, char** argv);
int run_generate(int argc, char** argv);
int run_export(int argc, char** argv);
int run_plan(int argc, char** argv);
int run_config(int argc, char** argv);

int run_data_tokenize(int argc, char** argv);
int run_data_inspect(int argc, char** argv);
int run_data_baseline(int argc, char** argv);
int run_data_bench(int argc, char** argv);

int run_record_check(int argc, char** argv);
int run_record_parse(int argc, char** argv);
int run_record_compare(int argc, char** argv);
int run_record_report(int argc, char** argv);
int run_record_attempt(int argc, char** argv);
int run_record_watch(int argc, char** argv);

int bench_step(int argc, char** argv);
int bench_ops(int argc, char** argv);
int bench_attention(int argc, char** argv);
int bench_optimizer_step(int argc, char** argv);
int bench_optimizers(int argc, char** argv);
int bench_orthogonalize(int argc, char** argv);
int bench_checkpoint(int argc, char** argv);

}  // namespace speedrun
