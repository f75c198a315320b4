#pragma once
// Where the time of a step goes, for `bench step`.
#include <array>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "app/bench/timing.h"
#include "model/step_probe.h"

namespace speedrun {

// Milliseconds of each StepPart, in its order.
using PartTimes = std::array<double, step_parts>;

const char* name_of(StepPart part);

// Times what a device does between one part and the next, with the host's clock or the GPU's own.
class StepTimer final : public StepProbe {
  public:
    explicit StepTimer(at::Device device) : device_(device) {}
    void enter(StepPart part) override;
    void enter(const Node& node, Direction) override;

    // Ends the last part, and gives the times since enter() was first called after the last time. On a GPU
    // waits for it.
    PartTimes take();

  private:
    struct Entry {
        StepPart part;
        Moment began;
    };
    at::Device device_;
    std::vector<Entry> entries_;
};

struct StepShares {
    PartTimes ms{};       // of all steps that were added
    double floor_ms = 0;  // the least they could have taken

    void add(const PartTimes& step, double floor_ms);
    double total_ms() const;
};

// "head 41.2 %  attention 18.0 % ..." and what the floor is of the whole.
std::string shares_text(const StepShares& shares);
// "share": of each part; "floor_share".
nlohmann::json shares_json(const StepShares& shares);

}  // namespace speedrun
