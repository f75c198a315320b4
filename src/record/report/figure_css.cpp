#include <fmt/core.h>
#include <array>

#include "record/report/svg.h"

namespace speedrun {
namespace {

// Of one ground. The series are told apart by people who do not see red and green apart too (after Okabe and
// Ito), and by their lightness in print.
struct Colours {
    const char *ground, *text, *muted, *grid, *axis, *stall, *target;
    std::array<const char*, kSeriesLooks> series;
};

constexpr size_t kSolidLooks = 6;  // the others are dashed too

constexpr Colours kLight = {"#ffffff",
                            "#2b2f36",
                            "#6a7280",
                            "#e4e7ec",
                            "#6a7280",
                            "#c8102e",
                            "#c8102e",
                            {"#1f6fb2", "#8a5a00", "#00785a", "#a3407e", "#4d4d4d", "#5a4fcf", "#d1571a",
                             "#0e8fb3", "#6f7d12", "#b86fc4"}};
constexpr Colours kDark = {"#15181d",
                           "#e3e6eb",
                           "#9aa3b0",
                           "#343a44",
                           "#8b93a0",
                           "#ff6b7d",
                           "#ff6b7d",
                           {"#6cb4ee", "#e0a93a", "#4cc9a0", "#e08cc0", "#bdbdbd", "#a79df5", "#ff9c66",
                            "#5fd7f5", "#c3d15a", "#d9a6e3"}};

}  // namespace

std::string figure_css(bool dark) {
    const Colours& c = dark ? kDark : kLight;
    std::string css = fmt::format(
        ".figure text{{fill:{};font:13px system-ui,\"Segoe UI\",\"DejaVu Sans\",sans-serif}}"
        ".figure .small{{font-size:11px}}.figure .muted{{fill:{}}}.figure .strong{{font-weight:600}}\n",
        c.text, c.muted);
    css += fmt::format(
        ".figure path,.figure polyline{{fill:none}}.figure .grid{{stroke:{}}}.figure .axis{{stroke:{}}}"
        ".figure .stall{{fill:{}}}.figure .row{{fill:{}}}\n",
        c.grid, c.axis, c.stall, c.grid);
    css += fmt::format(
        ".figure .target{{stroke:{};stroke-width:1.5;stroke-dasharray:6 4}}.figure .targetname{{fill:{}}}"
        ".figure .band{{fill-opacity:.18}}.figure .see-through{{fill-opacity:.75}}\n",
        c.target, c.target);
    for (size_t i = 0; i < kSeriesLooks; ++i)
        css += fmt::format(".figure .line{}{{stroke:{};stroke-width:1.5}}.figure .fill{}{{fill:{}}}\n", i,
                           c.series[i], i, c.series[i]);
    for (size_t i = kSolidLooks; i < kSeriesLooks; ++i)
        css += fmt::format(".figure .line{}{{stroke-dasharray:7 3}}\n", i);
    // Behind the series, whose widths and opacities these change.
    css +=
        ".figure .many{stroke-opacity:.55}.figure .faint{stroke-opacity:.25}.figure .thick{stroke-width:3}\n";
    return css;
}

}  // namespace speedrun
