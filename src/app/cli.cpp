#include "app/cli.h"

#include <array>
#include <cstdio>
#include <exception>
#include <functional>
#include <string_view>
#include <vector>

#include "app/build_info.h"
#include "app/verbs.h"
#include "util/error.h"
#include "util/nearest.h"

namespace speedrun {
namespace {

constexpr int kUserError = 2;
constexpr int kProgramFault = 3;

struct Verb {
    const char* name;
    int (*run)(int argc, char** argv);
    const char* summary;
};

constexpr std::array kVerbs = {
    Verb{"train", run_train, "train a model as a config says"},
    Verb{"eval", run_eval, "validation loss of saved weights"},
    Verb{"generate", run_generate, "sample text from saved weights"},
    Verb{"data", run_data, "tokenize, inspect and judge shards of tokens"},
    Verb{"record", run_record, "read logs, judge a record attempt, compare two"},
    Verb{"plan", run_plan, "memory, traffic, schedule and scaling of a run, without running it"},
    Verb{"config", run_config, "show a resolved config, or what differs between two"},
    Verb{"bench", run_bench, "time the parts of a step on this machine"},
};

void print_usage(std::FILE* out) {
    std::fputs("usage: speedrun VERB [options]\n\n", out);
    for (const auto& verb : kVerbs) std::fprintf(out, "  %-10s %s\n", verb.name, verb.summary);
    std::fputs(
        "\n  speedrun help VERB   the options of a verb\n  speedrun --version   what this program was built "
        "of\n",
        out);
}

const Verb& find_verb(std::string_view name) {
    for (const auto& verb : kVerbs)
        if (name == verb.name) return verb;
    std::vector<std::string> names;
    std::string list;
    for (const auto& verb : kVerbs) {
        names.emplace_back(verb.name);
        list += (list.empty() ? "" : ", ") + names.back();
    }
    throw UserError("unknown verb \"" + std::string(name) + "\"; did you mean \"" + nearest(name, names) +
                    "\"? The verbs: " + list);
}

int help(std::span<char*> args) {
    if (args.size() < 2) {
        print_usage(stdout);
        return 0;
    }
    std::string option = "--help";
    std::array<char*, 3> verb_args = {args[1], option.data(), nullptr};
    return find_verb(args[1]).run(2, verb_args.data());
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
    return find_verb(name).run(static_cast<int>(args.size()), args.data());
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
