#pragma once
#include <atomic>
#include <csignal>
#include <optional>
#include <thread>

namespace speedrun {

// Holds SIGINT, SIGTERM, SIGUSR2, SIGHUP and SIGUSR1 back for the life of the object, so that a run ends, or
// at SIGUSR1 saves its state, between two steps or two batches of a validation. Make it before any thread is
// started: threads inherit the mask. A second one of those that end it ends the process at once, with its
// usual meaning, whatever the run does then. (SIGUSR2 is what mpirun passes on, where it would follow the
// others by SIGKILL within a second. SIGHUP is left alone where it is ignored, as nohup has it.) What arrives
// after the last poll() is forgotten: the run had come to its end by itself.
class Interrupt {
  public:
    Interrupt();
    ~Interrupt();
    Interrupt(const Interrupt&) = delete;
    Interrupt& operator=(const Interrupt&) = delete;

    // The first signal that has arrived, if any.
    std::optional<int> poll();
    // Whether SIGUSR1 has arrived since the last call: a wish for a checkpoint.
    bool poll_save();

  private:
    void watch();
    void arrived(int signal);

    sigset_t watched_{}, save_{}, before_{};
    std::atomic<int> first_{0};
    int signals_ = -1, end_ = -1;  // descriptors: of the signals, and of the wish that the watcher ends
    std::thread watcher_;
};

// Forgets every signal that Interrupt would hold back, for what is left of the process: between the end of a
// run and that of the process one would turn its exit code into the signal's.
void forget_late_signals();

}  // namespace speedrun
