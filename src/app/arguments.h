#pragma once
#include <cstdio>
#include <cxxopts.hpp>
#include <initializer_list>
#include <optional>
#include <string>

#include "util/error.h"

namespace speedrun {

// options.parse with the mistakes of a command line as UserErrors that end with the verb's usage.
inline cxxopts::ParseResult parse_arguments(cxxopts::Options& options, int argc, char** argv) {
    try {
        auto result = options.parse(argc, argv);
        if (!result.unmatched().empty())
            throw UserError("unexpected argument \"" + result.unmatched().front() + "\"\n" + options.help());
        return result;
    } catch (const cxxopts::exceptions::exception& error) {
        throw UserError(std::string(error.what()) + "\n" + options.help());
    }
}

// As above, for a verb that explains itself: prints its usage and finds nothing where --help is given, and
// throws a UserError where a required option is not.
inline std::optional<cxxopts::ParseResult> parse_verb(cxxopts::Options& options, int argc, char** argv,
                                                      std::initializer_list<const char*> required) {
    auto result = parse_arguments(options, argc, argv);
    if (result.count("help") > 0) {
        std::puts(options.help().c_str());
        return std::nullopt;
    }
    for (const char* name : required)
        if (result.count(name) == 0)
            throw UserError(options.program() + ": --" + name + " is missing\n" + options.help());
    return result;
}

// The value of an option, or an empty one.
template <typename T>
T value_or_empty(const cxxopts::ParseResult& options, const char* name) {
    return options.count(name) > 0 ? options[name].as<T>() : T();
}

}  // namespace speedrun
