#include "record/report/curve.h"

#include <cmath>
#include <fstream>
#include <sstream>

#include "record/report/axis.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"
#include "support/terminal_columns.h"

namespace speedrun {
namespace {

LossCurve example() {
    LossCurve curve{"a <b> & c", {}, {}, 61000};
    for (int64_t step = 1; step <= 100; ++step)
        curve.train.push_back({step, 3 + 7.8 * std::exp(-static_cast<double>(step) / 10)});
    curve.validation = {{0, 10.8258}, {50, 3.1}, {100, 3.0042}};
    return curve;
}

size_t count(const std::string& text, const std::string& part) {
    size_t n = 0;
    for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
    return n;
}

TEST(Axis, TicksAreRoundAndInside) {
    const Axis axis = make_axis(2.93, 10.87, 9);
    EXPECT_EQ(axis.ticks, (std::vector<double>{3, 4, 5, 6, 7, 8, 9, 10}));
    EXPECT_EQ(axis.label(3), "3");
    const Axis fine = make_axis(3.271, 3.289, 5);
    ASSERT_EQ(fine.ticks.size(), 3u);
    EXPECT_EQ(fine.label(fine.ticks[1]), "3.280");
    EXPECT_EQ(make_axis(0, 400, 6).label(make_axis(0, 400, 6).ticks[0]), "0");
}

TEST(Axis, NeverMoreTicksThanAsked) {
    for (double extent = 1e-6; extent < 1e9; extent *= 1.37) {
        for (const int most : {2, 3, 7, 11}) {
            const Axis axis = make_axis(-extent / 3, 2 * extent / 3, most);
            EXPECT_LE(axis.ticks.size(), static_cast<size_t>(most)) << extent;
            EXPECT_GE(axis.ticks.size(), 1u) << extent;
        }
    }
}

TEST(Axis, WidensARangeWithoutExtent) {
    const Axis axis = make_axis(5, 5, 5);
    EXPECT_LT(axis.low, 5);
    EXPECT_GT(axis.high, 5);
}

TEST(CurveSvg, ShowsBothCurvesWithAxesAndUnits) {
    const std::string svg = curve_svg(example());
    EXPECT_EQ(count(svg, "<svg "), 1u);
    EXPECT_EQ(count(svg, "</svg>"), 1u);
    EXPECT_EQ(count(svg, "<circle"), 3u);
    EXPECT_EQ(count(svg, "<polyline"), 2u);
    for (const char* part : {"a &lt;b&gt; &amp; c", "loss (nats per token)", "step (training time 1:01)",
                             "validation 3.0042", "training 3.000"})
        EXPECT_NE(svg.find(part), std::string::npos) << part;
    EXPECT_EQ(svg.find("nan"), std::string::npos);
}

TEST(CurveSvg, LeavesOutPointsThatAreNotFinite) {
    LossCurve curve = example();
    curve.validation.push_back({150, std::nan("")});
    curve.train.push_back({101, INFINITY});
    EXPECT_EQ(curve_svg(curve), curve_svg(example()));
}

TEST(CurveSvg, StaysSmallForLongRuns) {
    LossCurve curve{"long", {}, {}, 0};
    for (int64_t step = 1; step <= 1000000; ++step) curve.train.push_back({step, 5});
    EXPECT_LT(curve_svg(curve).size(), 100000u);
}

TEST(CurveSvg, OfNothingIsStillAPicture) {
    const std::string svg = curve_svg({"empty", {}, {}, 0});
    EXPECT_NE(svg.find("</svg>"), std::string::npos);
    EXPECT_EQ(svg.find("nan"), std::string::npos);
}

TEST(WriteCurve, ReplacesTheFileOrSaysWhyNot) {
    const TemporaryFolder folder;
    write_curve(example(), folder / "loss.svg");
    std::ostringstream text;
    text << std::ifstream(folder / "loss.svg").rdbuf();
    EXPECT_EQ(text.str(), curve_svg(example()));
    expect_user_error([] { write_curve(example(), "/proc/no/loss.svg"); }, {"/proc/no/loss.svg"});
}

TEST(CurveText, FitsAndFallsFromTopLeftToBottomRight) {
    const std::string text = curve_text(example(), 60, 12);
    std::istringstream in(text);
    std::vector<std::string> lines;
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    ASSERT_EQ(lines.size(), 12u);
    EXPECT_EQ(lines[0], "a <b> & c");
    const std::string blank = "\xe2\xa0\x80";
    for (size_t row = 1; row <= 9; ++row) EXPECT_EQ(columns(lines[row]), 60u) << lines[row];
    // The last column's cell: empty in the top row, drawn in the bottom one.
    EXPECT_EQ(lines[1].substr(lines[1].size() - 3), blank);
    EXPECT_NE(lines[9].substr(lines[9].size() - 3), blank);
    EXPECT_NE(lines[11].find("100 steps"), std::string::npos) << lines[11];
}

TEST(CurveText, SurvivesAnyInput) {
    EXPECT_FALSE(curve_text({"empty", {}, {}, 0}).empty());
    EXPECT_FALSE(curve_text({"one", {{1, 5}}, {}, 0}, 1, 1).empty());
    EXPECT_FALSE(curve_text({"flat", {{1, 5}, {2, 5}}, {{2, NAN}}, 0}).empty());
}

}  // namespace
}  // namespace speedrun
