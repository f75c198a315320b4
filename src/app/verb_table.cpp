#include "app/verb_table.h"

#include <algorithm>
#include <cstdio>
#include <vector>

#include "util/error.h"
#include "util/nearest.h"

namespace speedrun {

std::string listing(std::span<const Verb> verbs) {
    size_t width = 0;
    for (const Verb& verb : verbs) width = std::max(width, verb.name.size());
    std::string text;
    for (const Verb& verb : verbs)
        text.append("  ")
            .append(verb.name)
            .append(width + 2 - verb.name.size(), ' ')
            .append(verb.summary)
            .append("\n");
    return text;
}

const Verb& find_verb(std::span<const Verb> verbs, std::string_view kind, std::string_view name) {
    std::vector<std::string> names;
    std::string list;
    for (const Verb& verb : verbs) {
        if (verb.name == name) return verb;
        names.emplace_back(verb.name);
        list += (list.empty() ? "" : ", ") + names.back();
    }
    const std::string what(kind);
    throw UserError("unknown " + what + " \"" + std::string(name) + "\"; did you mean \"" +
                    nearest(name, names) + "\"? The " + what + "s: " + list);
}

int run_part(std::span<const Verb> parts, int argc, char** argv) {
    const std::string owner = argv[0];
    const std::string usage = "usage: speedrun " + owner + " PART [options]; " + owner +
                              " PART --help lists them\n" + listing(parts);
    if (argc < 2) throw UserError(owner + ": which part?\n" + usage);
    const std::string_view name = argv[1];
    if (name == "--help" || name == "-h") {
        std::fputs(usage.c_str(), stdout);
        return 0;
    }
    return find_verb(parts, owner + " part", name).run(argc - 1, argv + 1);
}

}  // namespace speedrun
