#pragma once
#include <filesystem>
#include <vector>

#include "record/report/svg.h"

namespace speedrun {

// Each figure as a file of its name in `folder`, which is made where it is missing; replaced if it is there.
// Return the files.
std::vector<std::filesystem::path> write_svgs(const NamedFigures& figures,
                                              const std::filesystem::path& folder);
// By rsvg-convert, at twice the SVG's size, for screens of today.
std::vector<std::filesystem::path> write_pngs(const NamedFigures& figures,
                                              const std::filesystem::path& folder);
// A UserError where that program is missing: to be asked before the work that the figures show.
void require_png();

}  // namespace speedrun
