#pragma once
#include <string>
#include <vector>

namespace speedrun {

struct ChildEnd {
    int exit_code = 0;         // 128 + N where signal N ended it
    bool interrupted = false;  // SIGINT or SIGTERM came while it ran
};

// What the program prints goes where this process's does, or all of it to this process's stderr.
enum class ChildOutput { shared, to_stderr };

// Runs a program, found along PATH, with this process's files and environment, and waits for its end. SIGINT
// and SIGTERM that come meanwhile are the program's: this process goes on. Where this process ends meanwhile,
// the program gets SIGTERM. Throws UserError where the program cannot be started (command[0], the system's
// reason).
ChildEnd run_child(const std::vector<std::string>& command, ChildOutput output = ChildOutput::shared);

// Whether PATH has a program of this name.
bool program_exists(const std::string& name);

}  // namespace speedrun
