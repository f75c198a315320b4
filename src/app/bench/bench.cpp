#include "app/bench/verbs.h"
#include "app/verb_table.h"
#include "app/verbs.h"

namespace speedrun {
namespace {

constexpr Verb kParts[] = {
    {"step", bench_step, "a training step on random tokens"},
    {"ops", bench_ops, "every op of a training step, against its floor"},
    {"attention", bench_attention, "attention in every window of a run, each way there is"},
    {"optimizer-step", bench_optimizer_step, "the update alone, by each rule of matrices"},
    {"optimizers", bench_optimizers, "a race of the rules: loss over steps and time"},
    {"orthogonalize", bench_orthogonalize, "singular values and time of each way to orthogonalise"},
    {"checkpoint", bench_checkpoint, "saving and loading, and the disk they go to"},
};

}  // namespace

int run_bench(int argc, char** argv) {
    return run_part(kParts, argc, argv);
}

}  // namespace speedrun
