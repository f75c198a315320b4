#pragma once
#include <csignal>
#include <optional>

namespace speedrun {

// Holds SIGINT and SIGTERM back for the life of the object, so that a run ends between two steps. Make it
// before any thread is started: threads inherit the mask. A second signal ends the process at once, with its
// usual meaning.
class Interrupt {
  public:
    Interrupt();
    ~Interrupt();
    Interrupt(const Interrupt&) = delete;
    Interrupt& operator=(const Interrupt&) = delete;

    // The signal that has arrived, if any. From then on signals act as usual.
    std::optional<int> poll();

  private:
    sigset_t watched_{}, before_{};
    std::optional<int> arrived_;
};

}  // namespace speedrun
