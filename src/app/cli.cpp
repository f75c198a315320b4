#include "app/cli.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <iostream>
#include <string_view>
#include <vector>

#include "app/build_info.h"
#include "app/verb_table.h"
#include "app/verbs.h"
#include "job/ending.h"
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
    {"export", "saved weights as a model of Hugging Face's transformers", run_export},
    {"data", "tokenize, inspect and judge shards of tokens", nullptr, kData},
    {"record", "read logs, judge a record attempt, compare two", nullptr, kRecord},
    {"plan", "memory, traffic, schedule and scaling of a run, without running it", run_plan},
    {"config", "show a resolved config, or what differs between two", run_config},
    {"bench", "time the parts of a step on this machine", nullptr, kBench},
};

void print_usage() {
    std::printf(
        "usage: speedrun VERB [options]\n\n%s\n"
        "  speedrun help VERB   the options of a verb\n"
        "  speedrun --version   what this program was built of\n",
        listing(kVerbs).c_str());
}

// `help VERB ...` is `VERB ... --help`.
int help(std::span<char*> args) {
    if (args.size() < 2) {
        print_usage();
        return 0;
    }
    std::string option = "--help";
    std::vector<char*> words(args.begin() + 1, args.end());
    words.push_back(option.data());
    return run_verb(kVerbs, words);
}

int report(const Ending& ending) {
    std::fflush(stdout);
    std::fprintf(stderr, "%s: %s\n", ending.label.c_str(), ending.text.c_str());
    return ending.exit_code;
}

// What a verb prints is what it was asked for: a full disk or a closed pipe behind stdout is an error.
void require_printed() {
    std::cout.flush();
    errno = 0;
    if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0 && std::cout) return;
    if (errno == 0) {  // it went wrong before; the next try has the same reason
        std::fputc('\n', stdout);
        std::fflush(stdout);
    }
    throw UserError(std::string("standard output cannot be written: ") +
                    (errno != 0 ? std::strerror(errno) : "a part of it is lost"));
}

}  // namespace

int run_command(std::span<char*> args) {
    const std::string_view name = args.empty() ? "" : args[0];
    if (name == "--help" || name == "-h" || name == "help") return help(args);
    if (name == "--version") {
        std::puts(version_text().c_str());
        return 0;
    }
    return run_verb(kVerbs, args);
}

int run_program(std::span<char*> args) {
    try {
        const int exit_code = run_command(args);
        require_printed();
        return exit_code;
    } catch (...) {
        return report(ending_of(std::current_exception()));
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
