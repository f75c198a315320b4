#include <algorithm>
#include <array>
#include <cstdio>
#include <string>
#include <string_view>

#include "app/bench_verbs.h"
#include "app/verbs.h"
#include "util/error.h"

namespace speedrun {
namespace {

struct Bench {
    const char* name;
    const char* what;
    int (*run)(int argc, char** argv);
};

constexpr std::array kBenches{
    Bench{"step", "a training step on random tokens", bench_step},
    Bench{"ops", "every op of a training step, against its floor", bench_ops},
    Bench{"attention", "attention in every window of a run, each way there is", bench_attention},
    Bench{"optimizer-step", "the update alone, by each rule of matrices", bench_optimizer_step},
    Bench{"optimizers", "a race of the rules: loss over steps and time", bench_optimizers},
    Bench{"orthogonalize", "singular values and time of each way to orthogonalise", bench_orthogonalize},
    Bench{"checkpoint", "saving and loading, and the disk they go to", bench_checkpoint}};

std::string usage() {
    std::string text = "usage: speedrun bench WHAT [options]; bench WHAT --help lists them\n";
    for (const Bench& bench : kBenches) {
        std::string name = bench.name;
        name.resize(16, ' ');
        text += "  " + name + bench.what + "\n";
    }
    return text;
}

}  // namespace

int run_bench(int argc, char** argv) {
    const std::string_view name = argc > 1 ? argv[1] : "";
    if (name == "--help") {
        std::fputs(usage().c_str(), stdout);
        return 0;
    }
    const auto* const bench = std::ranges::find(kBenches, name, &Bench::name);
    if (bench == kBenches.end())
        throw UserError(
            "bench: " + (name.empty() ? "nothing named" : "no bench \"" + std::string(name) + "\"") + "\n" +
            usage());
    return bench->run(argc - 1, argv + 1);
}

}  // namespace speedrun
