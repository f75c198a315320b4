#pragma once
#include <memory>
#include <string_view>

#include "record/log/run_log.h"

namespace speedrun {

// Reads a log as it arrives, cut anywhere: the result does not depend on the cuts. Memory does not grow with
// the input but for the lists that ParseOptions asks for, the runs (at most kMaxRuns) and some bytes for each
// validation (at most kMaxValidations).
class RunLogParser {
  public:
    static constexpr size_t kMaxRuns = 1'000;        // later ones are counted as unplaced lines
    static constexpr size_t kMaxLineBytes = 16'384;  // of longer lines only the start is looked at
    static constexpr size_t kMaxValidations =
        1'000'000;  // of a file; later ones are counted as unplaced lines

    explicit RunLogParser(const ParseOptions& options = {});
    ~RunLogParser();
    RunLogParser(RunLogParser&&) noexcept;
    RunLogParser& operator=(RunLogParser&&) noexcept;

    void feed(std::string_view bytes);
    // What the whole lines so far say, for following a log that is being written.
    const RunLog& so_far() const;
    // Ends the last line and returns the result; nothing may be fed after.
    RunLog finish();

  private:
    class State;
    std::unique_ptr<State> state_;
};

}  // namespace speedrun
