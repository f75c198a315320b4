#include "util/text_table.h"

#include <algorithm>

#include "util/utf8.h"

namespace speedrun {
namespace {

// Characters of UTF-8 text.
size_t width_of(const std::string& cell) {
    return cell.size() - static_cast<size_t>(std::ranges::count_if(cell, continues_character));
}

std::vector<size_t> widths_of(const TextTable& rows) {
    std::vector<size_t> widths;
    for (const auto& row : rows) {
        widths.resize(std::max(widths.size(), row.size()));
        for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width_of(row[i]));
    }
    return widths;
}

std::string padded(const std::string& cell, size_t width, bool left) {
    const std::string space(width - width_of(cell), ' ');
    return left ? cell + space : space + cell;
}

}  // namespace

std::string plain_table(const TextTable& rows) {
    const auto widths = widths_of(rows);
    std::string text;
    for (const auto& row : rows) {
        std::string line;
        for (size_t i = 0; i < row.size(); ++i)
            line += (i > 0 ? "  " : "") + padded(row[i], widths[i], i == 0);
        line.erase(line.find_last_not_of(' ') + 1);
        text += line + "\n";
    }
    return text;
}

std::string markdown_table(const TextTable& rows) {
    std::string text;
    for (size_t i = 0; i < rows.size(); ++i) {
        text += "|";
        for (const auto& cell : rows[i]) text += " " + markdown_text(cell) + " |";
        text += "\n";
        if (i > 0) continue;
        text += "|";
        for (size_t column = 0; column < rows[i].size(); ++column) text += column == 0 ? "---|" : "---:|";
        text += "\n";
    }
    return text;
}

std::string markdown_text(std::string_view text) {
    std::string escaped;
    for (const char c : terminal_text(text)) {
        if (std::string_view("\\|`<[]*").find(c) != std::string_view::npos) escaped += '\\';
        escaped += c == '\n' ? ' ' : c;
    }
    return escaped;
}

}  // namespace speedrun
