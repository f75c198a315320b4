#include "config/config.h"

#include <cstdio>
#include <cxxopts.hpp>
#include <string>
#include <vector>

#include "app/verbs.h"
#include "model/load_config.h"
#include "util/error.h"

namespace speedrun {
namespace {

constexpr const char* kUsage =
    "usage: speedrun config show FILE [--set KEY=VALUE ...]   the resolved config\n"
    "       speedrun config diff A B [--set KEY=VALUE ...]    what differs, one line a value\n";

cxxopts::ParseResult parse(int argc, char** argv) {
    cxxopts::Options options("speedrun config");
    auto add = options.add_options();
    add("set", "", cxxopts::value<std::vector<std::string>>());
    add("help", "");
    add("words", "", cxxopts::value<std::vector<std::string>>());
    options.parse_positional("words");
    try {
        return options.parse(argc, argv);
    } catch (const cxxopts::exceptions::exception& error) {
        throw UserError(std::string("config: ") + error.what() + "; `speedrun config --help` says how");
    }
}

template <typename T>
T get_or(const cxxopts::ParseResult& options, const char* name) {
    return options.count(name) > 0 ? options[name].as<T>() : T();
}

}  // namespace

int run_config(int argc, char** argv) {
    const auto options = parse(argc, argv);
    if (options.count("help") > 0) {
        std::fputs(kUsage, stdout);
        return 0;
    }
    const auto words = get_or<std::vector<std::string>>(options, "words");
    const auto overrides = get_or<std::vector<std::string>>(options, "set");
    if (words.size() == 2 && words[0] == "show") {
        std::puts(load_config(words[1], overrides).resolved_json.c_str());
    } else if (words.size() == 3 && words[0] == "diff") {
        const Config a = load_config(words[1], overrides), b = load_config(words[2], overrides);
        std::fputs(config_diff(a, b).c_str(), stdout);
    } else {
        throw UserError("config: expected \"show FILE\" or \"diff A B\"; `speedrun config --help` says how");
    }
    return 0;
}

}  // namespace speedrun
