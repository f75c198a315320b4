#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "record/report/axis.h"
#include "record/report/curve.h"

namespace speedrun {
namespace {

// Braille characters as pixels: each is 2 dots wide and 4 high. Bit of the dot at [row][column], by Unicode.
constexpr unsigned kDot[4][2] = {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};

class Canvas {
  public:
    Canvas(int columns, int rows)
        : columns_(columns), rows_(rows), cells_(static_cast<size_t>(columns) * static_cast<size_t>(rows)) {}

    int dots_across() const { return 2 * columns_; }
    int dots_down() const { return 4 * rows_; }

    void dot(int x, int y) {
        x = std::clamp(x, 0, dots_across() - 1);
        y = std::clamp(y, 0, dots_down() - 1);
        cell(x / 2, y / 4) |= kDot[y % 4][x % 2];
    }

    // U+2800 + bits in UTF-8: three bytes, all cells alike.
    std::string row(int index) {
        std::string text;
        for (int column = 0; column < columns_; ++column) {
            const unsigned bits = cell(column, index);
            text += '\xe2';
            text += static_cast<char>(0xa0 + (bits >> 6));
            text += static_cast<char>(0x80 + (bits & 0x3f));
        }
        return text;
    }

  private:
    unsigned& cell(int column, int row) {
        return cells_[static_cast<size_t>(row) * static_cast<size_t>(columns_) + static_cast<size_t>(column)];
    }

    int columns_, rows_;
    std::vector<unsigned> cells_;
};

// Joins the points by straight lines, a dot for each column of dots or more where it is steep.
void draw(Canvas& canvas, const CurveAxes& axes, const std::vector<CurvePoint>& points) {
    const auto place = [&](const CurvePoint& p) {
        return std::pair(axes.steps.share(static_cast<double>(p.step)) * (canvas.dots_across() - 1),
                         (1 - axes.loss.share(p.loss)) * (canvas.dots_down() - 1));
    };
    for (size_t i = 0; i < points.size(); ++i) {
        const auto [x0, y0] = place(points[i == 0 ? 0 : i - 1]);
        const auto [x1, y1] = place(points[i]);
        const int pieces = 1 + static_cast<int>(std::max(std::abs(x1 - x0), std::abs(y1 - y0)));
        for (int k = 0; k <= pieces; ++k) {
            const double t = static_cast<double>(k) / pieces;
            canvas.dot(static_cast<int>(std::lround(x0 + t * (x1 - x0))),
                       static_cast<int>(std::lround(y0 + t * (y1 - y0))));
        }
    }
}

std::string padded(const std::string& text, size_t width) {
    return std::string(width - std::min(width, text.size()), ' ') + text;
}

// The label of the tick that falls on a row of characters, "" where none does.
std::string row_label(const Axis& axis, int row, int rows) {
    for (const double tick : axis.ticks)
        if (static_cast<int>(std::lround((1 - axis.share(tick)) * (rows - 1))) == row)
            return axis.label(tick);
    return "";
}

std::string step_labels(const Axis& axis, int columns) {
    std::string line;
    for (const double tick : axis.ticks) {
        const std::string label = axis.label(tick);
        const auto at = static_cast<size_t>(std::lround(axis.share(tick) * (columns - 1)));
        const size_t start = at < label.size() / 2 ? 0 : at - label.size() / 2;
        if (start > 0 && start < line.size() + 1) continue;
        line.resize(start, ' ');
        line += label;
    }
    return line;
}

}  // namespace

std::string curve_text(const LossCurve& curve, int columns, int rows) {
    const CurveAxes axes = curve_axes(curve, std::max(2, columns / 10), std::max(2, rows / 2));
    size_t margin = 0;
    for (const double tick : axes.loss.ticks) margin = std::max(margin, axes.loss.label(tick).size());
    const int width = std::max(2, columns - static_cast<int>(margin) - 2);
    const int height = std::max(2, rows - 3);
    Canvas canvas(width, height);
    // A run's shape is its training loss; without one the validations are joined instead.
    const auto train = finite_points(curve.train);
    draw(canvas, axes, train.empty() ? finite_points(curve.validation) : train);

    std::string text = curve.title + '\n';
    for (int row = 0; row < height; ++row) {
        const std::string label = row_label(axes.loss, row, height);
        text += padded(label, margin) + (label.empty() ? " │" : " ┤") + canvas.row(row) + '\n';
    }
    std::string floor;
    for (int column = 0; column < width; ++column) floor += "─";
    text += std::string(margin, ' ') + " └" + floor + '\n';
    return text + std::string(margin + 2, ' ') + step_labels(axes.steps, width) + " steps\n";
}

}  // namespace speedrun
