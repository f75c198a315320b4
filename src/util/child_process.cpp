#include "util/child_process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <sstream>

#include "util/error.h"

namespace speedrun {
namespace {

// Holds back what is waited for, in this thread. A parent that ignores SIGCHLD hands that down, and then the
// kernel neither sends it nor keeps a child's exit code: for as long as a child runs it acts as usual.
class BlockedSignals {
  public:
    BlockedSignals() {
        sigemptyset(&watched_);
        for (const int signal : {SIGINT, SIGTERM, SIGCHLD}) sigaddset(&watched_, signal);
        ::pthread_sigmask(SIG_BLOCK, &watched_, &before_);
        struct sigaction usual {};
        usual.sa_handler = SIG_DFL;
        ::sigaction(SIGCHLD, &usual, &child_before_);
    }
    ~BlockedSignals() {
        ::sigaction(SIGCHLD, &child_before_, nullptr);
        ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
    }
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
    struct sigaction child_before_ {};
};

// By which a child says why it could not become the program; closed by the kernel where it could.
class ExecReport {
  public:
    ExecReport() { check(::pipe2(ends_.data(), O_CLOEXEC) == 0, "pipe2"); }
    ~ExecReport() {
        for (const int end : ends_)
            if (end >= 0) ::close(end);
    }
    ExecReport(const ExecReport&) = delete;
    ExecReport& operator=(const ExecReport&) = delete;

    [[noreturn]] void send(int error) const {
        [[maybe_unused]] const ssize_t sent = ::write(ends_[1], &error, sizeof error);
        ::_exit(127);
    }
    // The error, 0 for none.
    int receive() {
        ::close(ends_[1]);
        ends_[1] = -1;
        int error = 0;
        while (::read(ends_[0], &error, sizeof error) < 0 && errno == EINTR) {
        }
        return error;
    }

  private:
    std::array<int, 2> ends_{-1, -1};
};

// In the child. It ends with its parent, however that ends: nobody would look at what it does.
[[noreturn]] void become(char* const* arguments, const sigset_t& mask, ChildOutput output, pid_t parent,
                         const ExecReport& report) {
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent) ::_exit(127);
    ::pthread_sigmask(SIG_SETMASK, &mask, nullptr);
    if (output == ChildOutput::to_stderr) ::dup2(STDERR_FILENO, STDOUT_FILENO);
    ::execvp(arguments[0], arguments);
    report.send(errno);
}

// The child gets the signal mask that this process had.
pid_t start(const std::vector<std::string>& command, const sigset_t& mask, ChildOutput output) {
    std::vector<std::string> copy = command;
    std::vector<char*> arguments;
    for (std::string& word : copy) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    ExecReport report;
    const pid_t parent = ::getpid();
    const pid_t pid = ::fork();
    if (pid == 0) become(arguments.data(), mask, output, parent, report);
    if (pid < 0) throw UserError(command[0] + ": cannot be started: " + std::strerror(errno));
    if (const int error = report.receive(); error != 0) {
        ::waitpid(pid, nullptr, 0);
        throw UserError(command[0] + ": cannot be started: " + std::strerror(error));
    }
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
