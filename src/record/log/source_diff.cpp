#include "record/log/source_diff.h"

#include <algorithm>
#include <cstdint>
#include <fstream>

#include "util/error.h"
#include "util/json_diff.h"
#include "util/json_document.h"

namespace speedrun {
namespace {

constexpr size_t kMostSourceBytes = 8 << 20;
constexpr size_t kMostLines = 6000;  // of a text: comparing takes their product in time and twice in bytes
constexpr size_t kContext = 2;       // equal lines shown around a change

std::vector<std::string_view> lines_of(std::string_view text) {
    std::vector<std::string_view> lines;
    while (!text.empty()) {
        const size_t end = std::min(text.find('\n'), text.size());
        lines.push_back(text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return lines;
}

// Lengths of the longest common subsequences of all pairs of ends of two texts.
class CommonLines {
  public:
    CommonLines(const std::vector<std::string_view>& a, const std::vector<std::string_view>& b)
        : columns_(b.size() + 1), lengths_((a.size() + 1) * columns_, 0) {
        for (size_t i = a.size(); i-- > 0;)
            for (size_t k = b.size(); k-- > 0;)
                at(i, k) = a[i] == b[k] ? static_cast<uint16_t>(at(i + 1, k + 1) + 1)
                                        : std::max(at(i + 1, k), at(i, k + 1));
    }
    uint16_t& at(size_t i, size_t k) { return lengths_[i * columns_ + k]; }

  private:
    size_t columns_;
    std::vector<uint16_t> lengths_;
};

std::vector<DiffLine> all_lines(const std::vector<std::string_view>& a,
                                const std::vector<std::string_view>& b) {
    CommonLines common(a, b);
    std::vector<DiffLine> lines;
    size_t i = 0, k = 0;
    while (i < a.size() || k < b.size()) {
        if (i < a.size() && k < b.size() && a[i] == b[k]) {
            lines.push_back({DiffLine::Kind::same, std::string(a[i])});
            ++i, ++k;
        } else if (k == b.size() || (i < a.size() && common.at(i + 1, k) >= common.at(i, k + 1))) {
            lines.push_back({DiffLine::Kind::removed, std::string(a[i++])});
        } else {
            lines.push_back({DiffLine::Kind::added, std::string(b[k++])});
        }
    }
    return lines;
}

// Leaves out the equal lines that are further than kContext from a change.
std::vector<DiffLine> with_gaps(const std::vector<DiffLine>& lines) {
    std::vector<bool> shown(lines.size(), false);
    for (size_t i = 0; i < lines.size(); ++i) {
        if (lines[i].kind == DiffLine::Kind::same) continue;
        for (size_t k = i - std::min(i, kContext); k < std::min(i + kContext + 1, lines.size()); ++k)
            shown[k] = true;
    }
    std::vector<DiffLine> kept;
    for (size_t i = 0; i < lines.size(); ++i) {
        if (shown[i]) {
            kept.push_back(lines[i]);
        } else if (!kept.empty() && kept.back().kind != DiffLine::Kind::gap) {
            kept.push_back({DiffLine::Kind::gap, ""});
        }
    }
    if (!kept.empty() && kept.back().kind == DiffLine::Kind::gap) kept.pop_back();
    return kept;
}

std::optional<Json> object_in(std::string_view text) {
    return text.starts_with("{") ? parse_json_if_valid(text) : std::nullopt;
}

}  // namespace

std::string read_log_source(const std::filesystem::path& log) {
    const std::string rule(100, '=');
    std::ifstream in(log, std::ios::binary);
    if (!in) throw UserError(log.string() + ": cannot be read");
    std::string source;
    for (std::string line; source.size() < kMostSourceBytes && std::getline(in, line);) {
        if (line.starts_with(rule)) return source;
        source.append(line).append("\n");
    }
    return "";
}

std::vector<DiffLine> source_diff(std::string_view before, std::string_view after) {
    std::vector<DiffLine> lines;
    const auto a = object_in(before), b = object_in(after);
    if (a && b) {
        for (const JsonDifference& d : json_diff(*a, *b)) {
            lines.push_back({DiffLine::Kind::removed, d.path + ": " + d.before});
            lines.push_back({DiffLine::Kind::added, d.path + ": " + d.after});
        }
        return lines;
    }
    const auto a_lines = lines_of(before), b_lines = lines_of(after);
    if (a_lines.size() <= kMostLines && b_lines.size() <= kMostLines)
        return with_gaps(all_lines(a_lines, b_lines));
    if (before == after) return lines;
    lines.push_back({DiffLine::Kind::removed, std::to_string(a_lines.size()) + " lines"});
    lines.push_back({DiffLine::Kind::added, std::to_string(b_lines.size()) + " lines"});
    return lines;
}

}  // namespace speedrun
