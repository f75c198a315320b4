#pragma once
// A run that stands still after a step until the test has done to it what it wants to (step_hold.cpp).
#include <filesystem>
#include <fstream>
#include <string>

#include "support/temporary_folder.h"

namespace speedrun {

class StepHold {
  public:
    // Of the run in `run_dir`, once its metrics hold `step`; to be made before the run starts.
    StepHold(const std::filesystem::path& run_dir, int64_t step)
        : metrics_(std::filesystem::weakly_canonical(run_dir) / "metrics.jsonl"), step_(step) {
        std::ofstream(folder_ / "hold") << "\n";
    }
    ~StepHold() { release(); }
    StepHold(const StepHold&) = delete;
    StepHold& operator=(const StepHold&) = delete;

    // What comes before the command of the run; `preload`: another library, if any. Leaks are not looked for:
    // these runs are killed, or start under mpirun.
    std::string environment(const std::string& preload = "") const {
        return "env ASAN_OPTIONS=verify_asan_link_order=0:detect_leaks=0:handle_sigbus=0"
               " LD_PRELOAD=" SPEEDRUN_STEP_HOLD +
               (preload.empty() ? "" : ":" + preload) + " SPEEDRUN_HOLD_METRICS=" + metrics_.string() +
               " SPEEDRUN_HOLD_STEP=" + std::to_string(step_) +
               " SPEEDRUN_HOLD_WHILE=" + (folder_ / "hold").string() + " ";
    }
    void release() const {
        std::error_code none;
        std::filesystem::remove(folder_ / "hold", none);
    }

  private:
    std::filesystem::path metrics_;
    int64_t step_;
    TemporaryFolder folder_;
};

}  // namespace speedrun
