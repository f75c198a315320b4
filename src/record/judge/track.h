#pragma once
#include <array>
#include <string>
#include <string_view>

namespace speedrun {

// A contest of modded-nanogpt, as its folder records/track_NUMBER_NAME has it.
struct Track {
    int number = 0;
    std::string_view name;
    double target = 0;          // loss to be below, nats per token
    bool counts_steps = false;  // the fewest steps win (judge_steps), not the least time (judge)
};

inline constexpr double kShortTarget = 3.28, kMediumTarget = 2.92;
inline constexpr std::array kTracks = {Track{1, "short", kShortTarget}, Track{2, "medium", kMediumTarget},
                                       Track{3, "optimization", kShortTarget, true}};

// The track of that number or name. UserError that lists them where there is none.
const Track& track_named(const std::string& text);

}  // namespace speedrun
