#pragma once
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cxxopts.hpp>
#include <initializer_list>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "util/error.h"

namespace speedrun {

// "; `speedrun train --help` lists its options": how a mistake in a command line ends.
inline std::string help_hint(const cxxopts::Options& options) {
    return "; `" + options.program() + " --help` lists its options";
}

// options.parse with the mistakes of a command line as UserErrors. Options that are numbers are declared as
// texts, and read by whole() and decimal() below, which name them where they are none.
inline cxxopts::ParseResult parse_arguments(cxxopts::Options& options, int argc, char** argv) {
    try {
        auto result = options.parse(argc, argv);
        if (!result.unmatched().empty())
            throw UserError(options.program() + ": unexpected argument \"" + result.unmatched().front() +
                            "\"" + help_hint(options));
        return result;
    } catch (const cxxopts::exceptions::exception& error) {
        throw UserError(options.program() + ": " + error.what() + help_hint(options));
    }
}

// As above, for a verb that explains itself: prints its usage and finds nothing where -h or --help is given,
// whatever is wrong with the other words, and throws a UserError where a required option is missing.
inline std::optional<cxxopts::ParseResult> parse_verb(cxxopts::Options& options, int argc, char** argv,
                                                      std::initializer_list<const char*> required) {
    options.add_options()("h,help", "this text");
    const auto explain = [&] {
        std::puts(options.help().c_str());
        return std::nullopt;
    };
    const auto asks = [](std::string_view word) { return word == "-h" || word == "--help"; };
    cxxopts::ParseResult result;
    try {
        result = parse_arguments(options, argc, argv);
    } catch (const UserError&) {
        if (std::any_of(argv + 1, argv + argc, asks)) return explain();
        throw;
    }
    if (result.count("help") > 0) return explain();
    for (const char* name : required)
        if (result.count(name) == 0)
            throw UserError(options.program() + ": --" + name + " is missing" + help_hint(options));
    return result;
}

// The value of an option, or an empty one.
template <typename T>
T value_or_empty(const cxxopts::ParseResult& options, const char* name) {
    return options.count(name) > 0 ? options[name].as<T>() : T();
}

// The value of an option that is a whole number, all of its text read. UserError that names the option.
template <typename Number>
Number whole(const cxxopts::ParseResult& options, const char* name) {
    const auto text = options[name].as<std::string>();
    Number value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error == std::errc::result_out_of_range)
        throw UserError(std::string("--") + name + " is " + text + ", expected a whole number from " +
                        std::to_string(std::numeric_limits<Number>::min()) + " to " +
                        std::to_string(std::numeric_limits<Number>::max()));
    if (error != std::errc() || end != text.data() + text.size())
        throw UserError(std::string("--") + name + " is \"" + text + "\", expected a whole number");
    return value;
}

// The same for a number with decimals, which a point parts off whatever the locale.
inline double decimal(const cxxopts::ParseResult& options, const char* name) {
    const auto text = options[name].as<std::string>();
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value))
        throw UserError(std::string("--") + name + " is \"" + text + "\", expected a number, such as 3.28");
    return value;
}

}  // namespace speedrun
