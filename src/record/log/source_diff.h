#pragma once
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace speedrun {

// The text before the first rule of a log: the program or the config that was run. "" where the log begins
// with a rule or has none. Throws UserError where the file cannot be read.
std::string read_log_source(const std::filesystem::path& log);

struct DiffLine {
    enum class Kind { same, removed, added, gap } kind = Kind::same;  // gap: equal lines that are left out
    std::string text;
};

// What differs between two sources: value by value where both are JSON, else line by line with the lines
// around. Empty where nothing does. Of texts too long to be compared only their lengths are told.
std::vector<DiffLine> source_diff(std::string_view before, std::string_view after);

}  // namespace speedrun
