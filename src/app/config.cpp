#include "config/config.h"

#include <cstdio>
#include <cxxopts.hpp>
#include <string>
#include <vector>

#include "app/arguments.h"
#include "app/verbs.h"
#include "model/load_config.h"
#include "util/error.h"

namespace speedrun {
namespace {

cxxopts::Options config_options() {
    cxxopts::Options options("speedrun config",
                             "show FILE: the resolved config.\n"
                             "diff A B: what differs, one line a value.\n");
    options.positional_help("show FILE|diff A B");
    auto add = options.add_options();
    add("set", "override a value, of both where there are two", cxxopts::value<std::vector<std::string>>());
    add("words", "show or diff, and files", cxxopts::value<std::vector<std::string>>());
    options.parse_positional("words");
    return options;
}

}  // namespace

int run_config(int argc, char** argv) {
    cxxopts::Options specification = config_options();
    const auto parsed = parse_verb(specification, argc, argv, {});
    if (!parsed) return 0;
    const auto words = value_or_empty<std::vector<std::string>>(*parsed, "words");
    const auto overrides = value_or_empty<std::vector<std::string>>(*parsed, "set");
    if (words.size() == 2 && words[0] == "show") {
        std::puts(load_config(words[1], overrides).resolved_json.c_str());
    } else if (words.size() == 3 && words[0] == "diff") {
        const Config a = load_config(words[1], overrides), b = load_config(words[2], overrides);
        std::fputs(config_diff(a, b).c_str(), stdout);
    } else {
        throw UserError("config: expected \"show FILE\" or \"diff A B\"" + help_hint(specification));
    }
    return 0;
}

}  // namespace speedrun
