#pragma once
// Diagnostics: what happens beside the results of a program, a line each on stderr:
//
//   [12:34:56.789] [rank 3] [warning] text
//
// with '?' in the place of what a terminal would obey (terminal_text in util/utf8.h). The environment
// variable SPDLOG_LEVEL chooses the least level that is written: trace, debug, info (the default), warn, err
// or off. The line that says why a program ends badly is none of these: it is the last one on stderr,
// whatever the level (app/cli.h, job/last_words.h).
#include <fmt/core.h>

#include <cstdint>
#include <string>
#include <utility>

namespace speedrun {

enum class Severity { debug, info, warning };

void diagnose(Severity severity, const std::string& text) noexcept;

template <typename... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
    diagnose(Severity::debug, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void inform(fmt::format_string<Args...> format, Args&&... args) {
    diagnose(Severity::info, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void warn(fmt::format_string<Args...> format, Args&&... args) {
    diagnose(Severity::warning, fmt::format(format, std::forward<Args>(args)...));
}

// From now on lines name this rank: a process is one of several.
void name_rank_in_diagnostics(int64_t rank);

}  // namespace speedrun
