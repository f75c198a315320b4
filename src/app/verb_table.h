#pragma once
#include <span>
#include <string>
#include <string_view>

namespace speedrun {

// A word of the command line and what it runs: argv[0] is the word, the rest are its options.
struct Verb {
    std::string_view name;
    int (*run)(int argc, char** argv);
    std::string_view summary;
};

// A line each: name and summary.
std::string listing(std::span<const Verb> verbs);

// UserError with the nearest and all names where there is no such one; `kind` is what they are called.
const Verb& find_verb(std::span<const Verb> verbs, std::string_view kind, std::string_view name);

// A verb that has parts, argv[0], with the part that argv[1] names and its options. "--help" in the part's
// place lists them.
int run_part(std::span<const Verb> parts, int argc, char** argv);

}  // namespace speedrun
