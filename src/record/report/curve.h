#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace speedrun {

struct CurvePoint {
    int64_t step = 0;
    double loss = 0;  // nats per token; points that are not finite are left out
};

struct LossCurve {
    std::string title;
    std::vector<CurvePoint> train, validation;
    double train_time_ms = 0;  // shown under the step axis where > 0
};

// A self-contained SVG: training loss as a thin line, validation as points joined by a line, axes with units,
// title.
std::string curve_svg(const LossCurve& curve);

// Writes curve_svg() to `path`, whole or not at all. Throws UserError where it cannot be written.
void write_curve(const LossCurve& curve, const std::filesystem::path& path);

// The same for a terminal: braille dots, `columns` wide and `rows` high with axis labels; lines end in '\n'.
std::string curve_text(const LossCurve& curve, int columns = 72, int rows = 14);

}  // namespace speedrun
