#pragma once
// One rank of a job that works in steps, and one of whose ranks goes wrong on demand: `victim` (-1: all) does
// `fault` at the beginning of step `at`. Each rank leaves its pid in folder/pid.R once it works.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "job/job.h"
#include "util/error.h"
#include "util/exit_codes.h"

namespace speedrun {
using namespace std::chrono_literals;

struct Arguments {
    std::filesystem::path folder;
    int64_t rank = 0, world = 1, steps = 10, victim = -1, at = 2, step_ms = 10, sleep_ms = 0;
    double deadline = 60;
    int64_t join_ms = 20'000;
    int64_t local = 0;   // 1: all ranks say that they share a loopback
    int64_t nofile = 0;  // descriptors that this process may have; 0: as usual
    std::string fault;
};

inline Arguments parse(const std::vector<std::string>& words) {
    std::map<std::string, std::string> given;
    for (const std::string& word : words)
        given[word.substr(0, word.find('='))] = word.substr(word.find('=') + 1);
    Arguments a;
    a.folder = given.at("folder");
    a.fault = given["fault"];
    for (auto [key, number] : {std::pair{"rank", &a.rank},
                               {"world", &a.world},
                               {"steps", &a.steps},
                               {"victim", &a.victim},
                               {"at", &a.at},
                               {"step_ms", &a.step_ms},
                               {"sleep_ms", &a.sleep_ms},
                               {"join_ms", &a.join_ms},
                               {"local", &a.local},
                               {"nofile", &a.nofile}})
        if (given.contains(key)) *number = std::stoll(given[key]);
    if (given.contains("deadline")) a.deadline = std::stod(given["deadline"]);
    return a;
}

// How the ranks of this test meet, and how they find out that all shall stop.
class Meeting {
  public:
    virtual ~Meeting() = default;
    virtual void all(int64_t sequence, const std::string& what) = 0;
    // True on all ranks from the same step on, once one of them has said `stop`.
    virtual bool all_stop(bool stop, int64_t step) = 0;
};

// By counters in a file that all ranks map.
class FileMeeting final : public Meeting {
  public:
    FileMeeting(const Arguments& arguments, CollectiveObserver& observer)
        : arguments_(arguments), observer_(observer) {
        const int file = ::open((arguments.folder / "meeting").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        check(file >= 0 && ::ftruncate(file, size) == 0, "meeting file");
        void* const memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        check(memory != MAP_FAILED, "mmap");
        ::close(file);
        arrived_ = static_cast<std::atomic<int64_t>*>(memory);
    }
    void all(int64_t sequence, const std::string& what) override {
        observer_.begin(sequence, what);
        if (what == "all_reduce(loss)") std::this_thread::sleep_for(60s);  // nobody else is in it
        arrived_[arguments_.rank] = sequence;
        for (int64_t rank = 0; rank < arguments_.world; ++rank)
            while (arrived_[rank] < sequence) std::this_thread::sleep_for(500us);
        observer_.end(sequence);
    }
    bool all_stop(bool stop, int64_t step) override {
        int64_t none = 0;  // no rank is more than a step ahead of another
        if (stop) arrived_[arguments_.world].compare_exchange_strong(none, step + 3);
        const int64_t at = arrived_[arguments_.world];
        return at > 0 && step >= at;
    }

  private:
    static constexpr size_t size = 4096;
    const Arguments& arguments_;
    CollectiveObserver& observer_;
    std::atomic<int64_t>* arrived_ = nullptr;  // by rank; then the step at which all stop
};

inline void sleep_ms(int64_t ms) {
    std::this_thread::sleep_for(std::chrono::milliseconds(ms));
}

inline void go_wrong(const Arguments& a) {
    if (a.fault == "throw") throw std::runtime_error("the disk of this rank is full");
    if (a.fault == "user") throw UserError("fineweb_train_000007.bin: not a shard:\nits magic number is 0");
    if (a.fault == "exit") std::exit(0);
    if (a.fault == "abort") std::abort();
    if (a.fault == "kill")  // wherever the rank is by then
        std::thread([file = a.folder / "killed", ms = a.sleep_ms] {
            sleep_ms(ms);
            std::ofstream(file, std::ios::trunc) << "now" << std::flush;
            ::raise(SIGKILL);
        }).detach();
    if (a.fault == "stop") ::raise(SIGSTOP);
    if (a.fault == "sleep") sleep_ms(a.sleep_ms);
}

inline bool signal_arrived() {
    sigset_t watched;
    sigemptyset(&watched);
    sigaddset(&watched, SIGTERM);
    sigaddset(&watched, SIGUSR2);
    const timespec now{0, 0};
    return ::sigtimedwait(&watched, nullptr, &now) > 0;
}

// As train does: signals end it between two steps.
inline void hold_signals() {
    sigset_t held;
    sigemptyset(&held);
    sigaddset(&held, SIGTERM);
    sigaddset(&held, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &held, nullptr);
}

inline int work(const Arguments& a, Job& job, Meeting& meeting) {
    const bool faulty = a.victim == -1 || a.victim == a.rank;
    job.set_deadline(a.deadline);
    job.require_same({{"config", faulty && a.fault == "config" ? "c0ffee" : "decade"}, {"build", "release"}});
    std::ofstream(a.folder / ("pid." + std::to_string(a.rank))) << ::getpid() << std::flush;
    std::printf("kept in the buffer of stdout");
    int64_t sequence = 0;
    bool stop = false;
    for (int64_t step = 0; step < a.steps; ++step) {
        job.at_step(step);
        if (faulty && step == a.at) go_wrong(a);
        if (faulty && step == a.at && a.fault == "return") return 0;
        sleep_ms(a.step_ms);
        if (a.fault == "alone" && step >= a.at) {  // nobody needs another any more
            if (faulty) return 0;
            continue;
        }
        const bool diverges = faulty && step == a.at && a.fault == "diverge";
        meeting.all(++sequence, diverges ? "all_reduce(loss)" : "reduce_scatter(mlp)");
        meeting.all(++sequence, "all_gather(mlp)");
        stop = stop || signal_arrived();
        if (meeting.all_stop(stop, step)) return kInterrupted;
    }
    return 0;
}

inline std::string broadcast_by_file(const Arguments& a, const std::string& text) {
    const std::filesystem::path file = a.folder / "address";
    if (a.rank == 0) {
        std::ofstream(a.folder / "address.new") << text;
        std::filesystem::rename(a.folder / "address.new", file);
        return text;
    }
    while (!std::filesystem::exists(file)) sleep_ms(2);
    std::ostringstream whole;
    whole << std::ifstream(file).rdbuf();
    return whole.str();
}

inline int run_with_files(const Arguments& a) {
    const auto broadcast = [&](const std::string& text) { return broadcast_by_file(a, text); };
    JobTiming timing;
    timing.join = std::chrono::milliseconds(a.join_ms);
    if (a.nofile > 0) {
        const rlimit limit{static_cast<rlim_t>(a.nofile), static_cast<rlim_t>(a.nofile)};
        check(::setrlimit(RLIMIT_NOFILE, &limit) == 0, "setrlimit");
    }
    return run_job({a.rank, a.world, a.local == 1, broadcast, timing}, [&](Job& job) {
        FileMeeting meeting(a, job.observer());
        return work(a, job, meeting);
    });
}

}  // namespace speedrun
