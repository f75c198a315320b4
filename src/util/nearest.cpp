#include "util/nearest.h"

#include <algorithm>
#include <vector>

namespace speedrun {

int edit_distance(std::string_view a, std::string_view b) {
    std::vector<std::vector<int>> d(a.size() + 1, std::vector<int>(b.size() + 1));
    for (size_t i = 0; i <= a.size(); ++i) d[i][0] = static_cast<int>(i);
    for (size_t j = 0; j <= b.size(); ++j) d[0][j] = static_cast<int>(j);
    for (size_t i = 1; i <= a.size(); ++i) {
        for (size_t j = 1; j <= b.size(); ++j) {
            const int replaced = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            d[i][j] = std::min({replaced, d[i - 1][j] + 1, d[i][j - 1] + 1});
            const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (swapped) d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
        }
    }
    return d[a.size()][b.size()];
}

std::string nearest(std::string_view word, std::span<const std::string> candidates) {
    constexpr size_t longest = 200;  // of what is compared: names come from files
    word = word.substr(0, longest);
    const auto distance = [&](std::string_view candidate) {
        return edit_distance(word, candidate.substr(0, longest));
    };
    const auto best = std::ranges::min_element(candidates, {}, distance);
    if (best == candidates.end()) return "";
    const size_t letters = std::max(word.size(), std::min(best->size(), longest));
    return 2 * static_cast<size_t>(distance(*best)) > letters ? "" : *best;
}

}  // namespace speedrun
