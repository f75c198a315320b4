#include "app/verb_table.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "util/error.h"
#include "util/nearest.h"
#include "util/text.h"

namespace speedrun {
namespace {

std::vector<std::string> names_of(std::span<const Verb> verbs) {
    std::vector<std::string> names;
    for (const Verb& verb : verbs) names.emplace_back(verb.name);
    return names;
}

// `kind` is what the verbs are called: "verb", "bench part".
const Verb& find_verb(std::span<const Verb> verbs, const std::string& kind, std::string_view name) {
    for (const Verb& verb : verbs)
        if (verb.name == name) return verb;
    const auto names = names_of(verbs);
    const std::string near = nearest(name, names);
    throw UserError(fmt::format("unknown {0} {1}{2} The {0}s: {3}", kind, in_quotes(name),
                                near.empty() ? "." : "; did you mean " + in_quotes(near) + "?",
                                joined(names)));
}

int run_part(const Verb& verb, std::span<char*> words) {
    const std::string owner(verb.name);
    const std::string usage = fmt::format(
        "usage: speedrun {0} PART [options]; {0} PART --help lists them\n{1}", owner, listing(verb.parts));
    if (words.empty())
        throw UserError(fmt::format("{0}: which part? {1}; `speedrun {0} --help` says what they are", owner,
                                    joined(names_of(verb.parts))));
    const std::string_view name = words[0];
    if (name == "--help" || name == "-h") {
        std::fputs(usage.c_str(), stdout);
        return 0;
    }
    return find_verb(verb.parts, owner + " part", name).run(static_cast<int>(words.size()), words.data());
}

}  // namespace

std::string listing(std::span<const Verb> verbs) {
    size_t width = 0;
    for (const Verb& verb : verbs) width = std::max(width, verb.name.size());
    std::string text;
    for (const Verb& verb : verbs) text += fmt::format("  {:<{}}{}\n", verb.name, width + 2, verb.summary);
    return text;
}

int run_verb(std::span<const Verb> verbs, std::span<char*> words) {
    if (words.empty())
        throw UserError(
            fmt::format("which verb? {}; `speedrun help` says what they do", joined(names_of(verbs))));
    const Verb& verb = find_verb(verbs, "verb", words[0]);
    return verb.run ? verb.run(static_cast<int>(words.size()), words.data())
                    : run_part(verb, words.subspan(1));
}

}  // namespace speedrun
