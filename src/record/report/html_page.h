#pragma once
#include <string>

#include "record/report/svg.h"
#include "util/text_table.h"

namespace speedrun {

// Parts of a page for a screen, light or dark, and for paper. `words` are text: markup in them is escaped.
std::string html_element(const std::string& tag, const std::string& words, const std::string& classes = "");

// The first row holds the titles. `prose`: the cells are words, not numbers.
std::string html_table(const TextTable& rows, bool prose = false);

std::string html_figure(const Svg& svg, const std::string& caption);

// The whole page, which needs nothing else. `body` is markup.
std::string html_page(const std::string& title, const std::string& body, const std::string& made_by);

}  // namespace speedrun
