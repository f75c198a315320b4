#pragma once
#include <span>
#include <string>

namespace speedrun {

// Runs `speedrun ARGS...`: args[0] is the verb. Returns the exit code of what it ran, or 2 without a word.
// Throws UserError and InternalError.
int run_command(std::span<char*> args);

// The same as a whole program: prints errors to stderr and returns 2 for a user's mistake, 3 for a fault of
// the program.
int run_program(std::span<char*> args);

// "speedrun 0.1.0 (commit ..., Release, torch 2.11.0, backends: cpu)"
std::string version_text();

}  // namespace speedrun
