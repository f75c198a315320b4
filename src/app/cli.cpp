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

constexpr Verb kVerbs[] = {
    {"train", run_train, "train a model as a config says"},
    {"eval", run_eval, "validation loss of saved weights"},
    {"generate", run_generate, "sample text from saved weights"},
    {"data", run_data, "tokenize, inspect and judge shards of tokens"},
    {"record", run_record, "read logs, judge a record attempt, compare two"},
    {"plan", run_plan, "memory, traffic, schedule and scaling of a run, without running it"},
    {"config", run_config, "show a resolved config, or what differs between two"},
    {"bench", run_bench, "time the parts of a step on this machine"},
};

void print_usage(std::FILE* out) {
    std::fprintf(out,
                 "usage: speedrun VERB [options]\n\n%s\n"
                 "  speedrun help VERB   the options of a verb\n"
                 "  speedrun --version   what this program was built of\n",
                 listing(kVerbs).c_str());
}

int run_verb(std::span<char*> words) {
    return find_verb(kVerbs, "verb", words[0]).run(static_cast<int>(words.size()), words.data());
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
    return run_verb(words);
}

int dispatch(std::span<char*> args) {
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
    return run_verb(args);
}

int report(const char* kind, const char* what, int exit_code) {
    std::fflush(stdout);
    std::fprintf(stderr, "%s: %s\n", kind, what);
    return exit_code;
}

}  // namespace

int run_program(std::span<char*> args) {
    try {
        return dispatch(args);
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
