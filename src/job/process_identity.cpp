#include "job/process_identity.h"

#include <unistd.h>

#include <array>
#include <csignal>
#include <exception>
#include <fstream>
#include <sstream>

#include "util/files.h"

namespace speedrun {
namespace {

// Field 22 of /proc/PID/stat; -1 where there is no such process, or a dead one. Field 2, the name, may hold
// spaces and ')'.
int64_t start_time(int64_t pid) {
    std::ifstream in("/proc/" + std::to_string(pid) + "/stat");
    std::string line;
    if (!std::getline(in, line)) return -1;
    std::istringstream fields(line.substr(line.rfind(')') + 1));
    std::string state, skipped;
    fields >> state;
    if (state == "Z" || state == "X") return -1;
    for (int field = 4; field < 22; ++field) fields >> skipped;
    int64_t ticks = -1;
    fields >> ticks;
    return ticks;
}

// The kernel's boot and one of this process's namespaces.
std::string namespace_id(const char* name) {
    std::string boot;
    std::getline(std::ifstream("/proc/sys/kernel/random/boot_id") >> std::ws, boot);
    return boot + " " + files::link_target(std::string("/proc/self/ns/") + name).value_or("").string();
}

std::string machine_id() {
    return namespace_id("pid");
}

std::string host_name() {
    std::array<char, 256> name{};
    return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "unknown host";
}

}  // namespace

ProcessIdentity this_process() {
    return {
        .host = host_name(), .machine = machine_id(), .pid = ::getpid(), .started = start_time(::getpid())};
}

std::string loopback_id() {
    return namespace_id("net");
}

bool is_here(const ProcessIdentity& process) noexcept try {
    return process.pid > 1 && process.machine == machine_id() && start_time(process.pid) == process.started;
} catch (const std::exception&) {
    return false;  // out of memory while a job is being ended: the launcher is left to do the rest
}

void kill_process(const ProcessIdentity& process) noexcept {
    if (is_here(process)) ::kill(static_cast<pid_t>(process.pid), SIGKILL);
}

}  // namespace speedrun
