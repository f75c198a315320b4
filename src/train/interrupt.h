#pragma once
#include <csignal>
#include <optional>

namespace speedrun {

// Holds SIGINT, SIGTERM, SIGUSR2 and SIGUSR1 back for the life of the object, so that a run ends, or at
// SIGUSR1 saves its state, between two steps. Make it before any thread is started: threads inherit the mask.
// A second one of those that end it ends the process at once, with its usual meaning. (SIGUSR2 is what mpirun
// passes on, where it would follow the other two by SIGKILL within a second.)
class Interrupt {
  public:
    Interrupt();
    ~Interrupt();
    Interrupt(const Interrupt&) = delete;
    Interrupt& operator=(const Interrupt&) = delete;

    // The signal that has arrived, if any. From then on signals act as usual.
    std::optional<int> poll();
    // Whether SIGUSR1 has arrived since the last call: a wish for a checkpoint.
    bool poll_save();

  private:
    sigset_t watched_{}, save_{}, before_{};
    std::optional<int> arrived_;
};

}  // namespace speedrun
