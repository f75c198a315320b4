#include "job/last_words.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <exception>
#include <map>
#include <string>

#include "job/control_message.h"
#include "util/exit_codes.h"

namespace speedrun {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

// From here on nothing may keep this process: a full pipe behind stdout could.
void limit_what_is_left() {
    ::signal(SIGALRM, SIG_DFL);
    sigset_t alarm_only;
    sigemptyset(&alarm_only);
    sigaddset(&alarm_only, SIGALRM);
    pthread_sigmask(SIG_UNBLOCK, &alarm_only, nullptr);
    ::alarm(5);
}

// The launcher may send SIGTERM as soon as the first rank has left; the cause is still to be printed then.
void outlive_the_launcher() {
    ::signal(SIGTERM, SIG_IGN);
    ::signal(SIGINT, SIG_IGN);
}

// Silent ranks of other machines are killed by the lowest rank there that answers.
std::map<int64_t, std::vector<ProcessIdentity>> share_out_killing(const std::vector<Companion>& companions,
                                                                  const std::string& own_machine) {
    std::map<std::string, int64_t> killer;
    for (const Companion& companion : companions)
        if (!companion.silent) killer.try_emplace(companion.process.machine, companion.rank);
    std::map<int64_t, std::vector<ProcessIdentity>> shares;
    for (const Companion& companion : companions)
        if (const auto found = killer.find(companion.process.machine);
            companion.silent && found != killer.end() && companion.process.machine != own_machine)
            shares[found->second].push_back(companion.process);
    return shares;
}

// Half a second for the companions to leave, those that are silent only to be told; `staying` stays.
void wait_until_gone(std::vector<Companion>& companions, const Companion* staying) {
    const auto awaited = [&](const Companion& companion) {
        const bool leaves = !companion.silent && &companion != staying;
        return companion.channel.open() && (leaves || companion.channel.behind());
    };
    const auto until = Clock::now() + 500ms;
    while (std::ranges::any_of(companions, awaited)) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now());
        if (left <= 0ms) return;
        std::vector<pollfd> sockets;
        for (const Companion& companion : companions)
            if (awaited(companion)) sockets.push_back(companion.channel.interest());
        ::poll(sockets.data(), sockets.size(), static_cast<int>(left.count()));
        for (Companion& companion : companions)
            while (awaited(companion) && companion.channel.next()) {
            }
    }
}

void print_line(const std::string& text) {
    const std::string line = text + "\n";
    for (size_t at = 0; at < line.size();) {
        const ssize_t written = ::write(STDERR_FILENO, line.data() + at, line.size() - at);
        if (written <= 0) return;  // nobody is there to be told
        at += static_cast<size_t>(written);
    }
}

void flush_stdout() {
    // A thread that hangs in a write to stdout holds its lock for ever.
    if (::ftrylockfile(stdout) != 0) return;
    ::fflush_unlocked(stdout);
    ::funlockfile(stdout);
}

// The lowest rank that answers.
Companion* find_witness(std::vector<Companion>& companions) {
    const auto found = std::ranges::find_if(
        companions, [](const Companion& companion) { return !companion.silent && companion.channel.open(); });
    return found == companions.end() ? nullptr : &*found;
}

void tell(const Cause& cause, const std::string& token, std::vector<Companion>& companions,
          const Companion* witness) {
    const auto shares = share_out_killing(companions, this_process().machine);
    for (Companion& companion : companions) {
        ControlMessage end = message("end", "code", cause.exit_code);
        end["token"] = token;
        if (const auto share = shares.find(companion.rank); share != shares.end())
            end["kill"] = share->second;
        if (&companion == witness) end["text"] = cause.text;
        companion.channel.send(end);
    }
}

// This process may have been stopped for so long that the witness spoke for it.
bool has_spoken(Channel& witness) {
    while (const auto message = witness.next())
        if (text_of(*message, "kind") == "spoken") return true;
    return false;
}

void say(const Cause& cause, const std::string& token, std::vector<Companion>& companions) {
    Companion* const witness = find_witness(companions);
    tell(cause, token, companions, witness);
    wait_until_gone(companions, witness);
    if (!witness) return print_line(cause.text);
    if (!has_spoken(witness->channel)) print_line(cause.text);
    witness->channel.send(message("said", "token", token));
    wait_until_gone(companions, nullptr);
}

void kill_what_is_left(const std::vector<Companion>& companions, std::vector<ProcessIdentity> left) noexcept {
    for (const Companion& companion : companions)
        if (companion.channel.open()) left.push_back(companion.process);
    if (std::ranges::none_of(left, is_here)) return;
    ::usleep(static_cast<useconds_t>(std::chrono::microseconds(kKillDelay).count()));
    for (const ProcessIdentity& process : left) kill_process(process);
}

}  // namespace

void leave(int exit_code, Channel& channel) noexcept {
    limit_what_is_left();
    flush_stdout();
    channel.close();  // the kernel would first take down the memory, which is slow
    ::_exit(exit_code);
}

void stand_by(const Cause& cause, Channel& channel) noexcept {
    limit_what_is_left();
    outlive_the_launcher();
    flush_stdout();
    const auto until = Clock::now() + 2s;
    try {
        while (Clock::now() < until) {
            while (const auto message = channel.next())
                if (text_of(*message, "kind") == "said") leave(cause.exit_code, channel);
            if (!channel.open()) break;
            pollfd socket = channel.interest();
            ::poll(&socket, 1, 100);
        }
        channel.send(message("spoken"));
    } catch (const std::exception&) {
        // Said twice is better than not at all.
    }
    print_line(cause.text);
    ::_exit(cause.exit_code);
}

void end_job(const Cause& cause, const std::string& token, std::vector<Companion> companions,
             const std::vector<ProcessIdentity>& more_to_kill, const LastCall& told) noexcept {
    limit_what_is_left();
    outlive_the_launcher();
    flush_stdout();
    try {
        say(cause, token, companions);
    } catch (const std::exception&) {
        print_line(cause.text);  // the others will see this process's connections end
    }
    try {
        told(cause.text);  // after all else, as it may hang
    } catch (const std::exception&) {
    }
    kill_what_is_left(companions, more_to_kill);
    ::_exit(cause.exit_code);
}

}  // namespace speedrun
