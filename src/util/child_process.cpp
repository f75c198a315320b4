#include "util/child_process.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <sstream>

#include "util/error.h"

namespace speedrun {
namespace {

// Holds back what is waited for, in this thread.
class BlockedSignals {
  public:
    BlockedSignals() {
        sigemptyset(&watched_);
        for (const int signal : {SIGINT, SIGTERM, SIGCHLD}) sigaddset(&watched_, signal);
        ::pthread_sigmask(SIG_BLOCK, &watched_, &before_);
    }
    ~BlockedSignals() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
    BlockedSignals(const BlockedSignals&) = delete;
    BlockedSignals& operator=(const BlockedSignals&) = delete;

    const sigset_t& before() const { return before_; }
    siginfo_t wait() const {
        siginfo_t info{};
        while (::sigwaitinfo(&watched_, &info) < 0 && errno == EINTR) {
        }
        return info;
    }

  private:
    sigset_t watched_{}, before_{};
};

// The child gets the signal mask that this process had.
pid_t start(const std::vector<std::string>& command, const sigset_t& mask, ChildOutput output) {
    std::vector<std::string> copy = command;
    std::vector<char*> arguments;
    for (std::string& word : copy) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    posix_spawnattr_t attributes;
    ::posix_spawnattr_init(&attributes);
    ::posix_spawnattr_setsigmask(&attributes, &mask);
    ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    posix_spawn_file_actions_t files;
    ::posix_spawn_file_actions_init(&files);
    if (output == ChildOutput::to_stderr)
        ::posix_spawn_file_actions_adddup2(&files, STDERR_FILENO, STDOUT_FILENO);
    pid_t pid = 0;
    const int error = ::posix_spawnp(&pid, arguments[0], &files, &attributes, arguments.data(), environ);
    ::posix_spawnattr_destroy(&attributes);
    ::posix_spawn_file_actions_destroy(&files);
    if (error != 0) throw UserError(command[0] + ": cannot be started: " + std::strerror(error));
    return pid;
}

}  // namespace

ChildEnd run_child(const std::vector<std::string>& command, ChildOutput output) {
    check(!command.empty(), "a command has a program");
    const BlockedSignals signals;
    const pid_t pid = start(command, signals.before(), output);
    ChildEnd end;
    for (int status = 0;;) {
        const siginfo_t info = signals.wait();
        if (info.si_signo == SIGCHLD) {
            if (::waitpid(pid, &status, WNOHANG) != pid) continue;
            end.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
            return end;
        }
        end.interrupted = true;
        // Ctrl-C reaches the whole foreground group; what another process sent reached only this one.
        if (info.si_code != SI_KERNEL) ::kill(pid, info.si_signo);
    }
}

bool program_exists(const std::string& name) {
    const char* path = std::getenv("PATH");
    std::istringstream folders(path == nullptr ? "" : path);
    for (std::string folder; std::getline(folders, folder, ':');)
        if (::access((std::filesystem::path(folder) / name).c_str(), X_OK) == 0) return true;
    return false;
}

}  // namespace speedrun
