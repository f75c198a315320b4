#pragma once
#include <span>
#include <string>
#include <string_view>

namespace speedrun {

// A word of the command line: it runs something with the options behind it, or has parts, of which the next
// word names one.
struct Verb {
    std::string_view name, summary;
    int (*run)(int argc, char** argv) = nullptr;
    std::span<const Verb> parts = {};
};

// A line each: name and summary.
std::string listing(std::span<const Verb> verbs);

// Runs the verb that words[0] names. UserError with all names, and the nearest, where there is no such one.
int run_verb(std::span<const Verb> verbs, std::span<char*> words);

}  // namespace speedrun
