#include "app/cli.h"

#include <cstdio>
#include <exception>
#include <string_view>
#include <vector>

#include "app/build_info.h"
#include "app/verb_table.h"
#include "app/verbs.h"
#include "util/error.h"
#include "util/exit_codes.h"

namespace speedrun {
namespace {

constexpr Verb kData[] = {
    {"tokenize", "text files -> shards of GPT-2 tokens", run_data_tokenize},
    {"inspect", "check shards; counts, document lengths, a decoded sample", run_data_inspect},
    {"baseline", "validation loss of a unigram and a bigram model", run_data_baseline},
    {"bench", "speed of the tokenizer and of the document index", run_data_bench},
};

constexpr Verb kRecord[] = {
    {"check", "is it a record? statistics of the runs in folders, verdict", run_record_check},
    {"parse", "what a log says: runs, validations, stalls", run_record_parse},
    {"compare", "what a change brought: time, steps, step time", run_record_compare},
    {"report", "all of that with pictures, as one page", run_record_report},
    {"attempt", "run an attempt N times, collect its logs, judge it", run_record_attempt},
    {"watch", "follow the log of a run", run_record_watch},
};

constexpr Verb kBench[] = {
    {"step", "a training step on random tokens", bench_step},
    {"ops", "every op of a training step, against its floor", bench_ops},
    {"attention", "attention in every window of a run, each way there is", bench_attention},
    {"optimizer-step", "the update alone, by each rule of matrices", bench_optimizer_step},
    {"optimizers", "a race of the rules: loss over steps and time", bench_optimizers},
    {"orthogonalize", "singular values and time of each way to orthogonalise", bench_orthogonalize},
    {"checkpoint", "saving and loading, and the disk they go to", bench_checkpoint},
};

constexpr Verb kVerbs[] = {
    {"train", "train a model as a config says", run_train},
    {"eval", "validation loss of saved weights", run_eval},
    {"generate", "sample text from saved weights", run_generate},
    {"data", "tokenize, inspect and judge shards of tokens", nullptr, kData},
    {"record", "read logs, judge a record attempt, compare two", nullptr, kRecord},
    {"plan", "memory, traffic, schedule and scaling of a run, without running it", run_plan},
    {"config", "show a resolved config, or what differs between two", run_config},
    {"bench", "time the parts of a step on this machine", nullptr, kBench},
};

void print_usage(std::FILE* out) {
    std::fprintf(out,
                 "usage: speedrun VERB [options]\n\n%s\n"
                 "  speedrun help VERB   the options of a verb\n"
                 "  speedrun --version   what this program was built of\n",
                 listing(kVerbs).c_str());
}

// `help VERB ...` is `VERB ... --help`.
int help(std::span<char*> args) {
    if (args.size() < 2) {
        print_usage(stdout);
        return 0;
    }
    std::string option = "--help";
    std::vector<char*> words(args.begin() + 1, args.end());
    words.push_back(option.data());
    return run_verb(kVerbs, words);
}

int report(const char* kind, const char* what, int exit_code) {
    std::fflush(stdout);
    std::fprintf(stderr, "%s: %s\n", kind, what);
    return exit_code;
}

}  // namespace

int run_command(std::span<char*> args) {
    if (args.empty()) {
        print_usage(stderr);
        return kUserError;
    }
    const std::string_view name = args[0];
    if (name == "--help" || name == "-h" || name == "help") return help(args);
    if (name == "--version") {
        std::puts(version_text().c_str());
        return 0;
    }
    return run_verb(kVerbs, args);
}

int run_program(std::span<char*> args) {
    try {
        return run_command(args);
    } catch (const UserError& error) {
        return report("error", error.what(), kUserError);
    } catch (const InternalError& error) {
        return report("internal error", error.what(), kProgramFault);
    } catch (const std::exception& error) {
        return report("internal error", error.what(), kProgramFault);
    }
}

std::string version_text() {
    std::string text = "speedrun " + build_version() + "\ncommit: " + build_commit() +
                       "\nbuild: " + build_summary() + "\nbackends: " + build_backends();
    for (const auto& [name, version] : library_versions())
        text.append("\n").append(name).append(": ").append(version);
    return text;
}

}  // namespace speedrun
