#pragma once
#include <cxxopts.hpp>
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

// The value of an option, or an empty one.
template <typename T>
T value_or_empty(const cxxopts::ParseResult& options, const char* name) {
    return options.count(name) > 0 ? options[name].as<T>() : T();
}

}  // namespace speedrun
