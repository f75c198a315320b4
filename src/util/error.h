#pragma once
#include <cstdint>
#include <source_location>
#include <stdexcept>
#include <string>

namespace speedrun {

// A user's mistake: bad config, bad file, bad argument. The text says what is wrong, where (file, JSON path
// or byte offset), what was found and what would be allowed. The program prints it and exits with code 2.
class UserError : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

// A broken invariant of the program itself. The text carries file and line; exit code 3.
class InternalError : public std::logic_error {
  public:
    explicit InternalError(const std::string& what, std::source_location at = std::source_location::current())
        : std::logic_error(std::string(at.file_name()) + ":" + std::to_string(at.line()) + ": " + what) {}
};

// Throws InternalError unless `condition` holds.
inline void check(bool condition, const std::string& what,
                  std::source_location at = std::source_location::current()) {
    if (!condition) throw InternalError(what, at);
}
inline void check(bool condition, const char* what,
                  std::source_location at = std::source_location::current()) {
    if (!condition) throw InternalError(what, at);
}

}  // namespace speedrun
