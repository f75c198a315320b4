#include "record/judge/track.h"

#include <algorithm>

#include "util/error.h"
#include "util/text.h"

namespace speedrun {

const Track& track_named(const std::string& text) {
    const auto is_meant = [&](const Track& track) {
        return text == track.name || text == std::to_string(track.number);
    };
    const auto found = std::ranges::find_if(kTracks, is_meant);
    if (found != kTracks.end()) return *found;
    std::string allowed;
    for (const Track& track : kTracks)
        allowed +=
            (allowed.empty() ? "" : ", ") + std::to_string(track.number) + " or " + std::string(track.name);
    throw UserError("--track: " + in_quotes(text) + " is no track; there are " + allowed);
}

}  // namespace speedrun
