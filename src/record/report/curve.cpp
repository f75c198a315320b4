#include "record/report/curve.h"

#include <algorithm>
#include <cstdio>
#include <sstream>

#include "record/live/progress.h"
#include "record/report/axis.h"
#include "record/report/svg.h"
#include "util/atomic_file.h"

namespace speedrun {
namespace {

constexpr double kWidth = 880, kHeight = 500;
constexpr double kLeft = 70, kRight = 24, kTop = 48, kBottom = 58;
constexpr const char* kTrainColour = "#5b8def";
constexpr const char* kValidationColour = "#d1495b";
constexpr size_t kMaxPoints = 4000;  // more than a picture of this width can show

std::string fixed(double value, int decimals) {
    char buffer[64];
    std::snprintf(buffer, sizeof(buffer), "%.*f", decimals, value);
    return buffer;
}

class Picture {
  public:
    explicit Picture(const LossCurve& curve) : curve_(curve), axes_(curve_axes(curve, 11, 9)) {}

    std::string svg() {
        out_ << R"(<svg xmlns="http://www.w3.org/2000/svg" width=")" << kWidth << "\" height=\"" << kHeight
             << R"(" viewBox="0 0 880 500" font-family="sans-serif" font-size="13" fill="#333">)"
             << "\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n";
        text(kWidth / 2, 26, "middle", curve_.title, R"( font-size="16" font-weight="bold")");
        grid();
        line(finite_points(curve_.train), kTrainColour, 1);
        const auto validation = finite_points(curve_.validation);
        line(validation, kValidationColour, 1.5);
        for (const auto& p : validation)
            out_ << "<circle cx=\"" << x(p) << "\" cy=\"" << y(p) << "\" r=\"3.5\" fill=\""
                 << kValidationColour << "\"/>\n";
        legend();
        out_ << "</svg>\n";
        return out_.str();
    }

  private:
    std::string x_at(double step) const {
        return fixed(kLeft + axes_.steps.share(step) * (kWidth - kLeft - kRight), 1);
    }
    std::string y_at(double loss) const {
        return fixed(kHeight - kBottom - axes_.loss.share(loss) * (kHeight - kTop - kBottom), 1);
    }
    std::string x(const CurvePoint& p) const { return x_at(static_cast<double>(p.step)); }
    std::string y(const CurvePoint& p) const { return y_at(p.loss); }

    void text(double x, double y, const char* anchor, const std::string& words, const char* more = "") {
        out_ << "<text x=\"" << x << "\" y=\"" << y << "\" text-anchor=\"" << anchor << '"' << more << '>'
             << xml_text(words) << "</text>\n";
    }

    void grid() {
        const std::string left = fixed(kLeft, 1), right = fixed(kWidth - kRight, 1);
        const std::string top = fixed(kTop, 1), bottom = fixed(kHeight - kBottom, 1);
        out_ << R"(<g stroke="#e3e3e3">)" << '\n';
        for (const double tick : axes_.loss.ticks)
            out_ << "<path d=\"M" << left << ' ' << y_at(tick) << " H" << right << "\"/>\n";
        for (const double tick : axes_.steps.ticks)
            out_ << "<path d=\"M" << x_at(tick) << ' ' << top << " V" << bottom << "\"/>\n";
        out_ << "</g>\n<path d=\"M" << left << ' ' << top << " V" << bottom << " H" << right
             << R"(" fill="none" stroke="#333"/>)" << '\n';
        for (const double tick : axes_.loss.ticks)
            text(kLeft - 8, std::stod(y_at(tick)) + 4, "end", axes_.loss.label(tick));
        for (const double tick : axes_.steps.ticks)
            text(std::stod(x_at(tick)), kHeight - kBottom + 18, "middle", axes_.steps.label(tick));
        std::string steps = "step";
        if (curve_.train_time_ms > 0)
            steps += " (training time " + duration_text(curve_.train_time_ms / 1000) + ")";
        text((kLeft + kWidth - kRight) / 2, kHeight - 14, "middle", steps);
        text(0, 0, "middle", "loss (nats per token)", " transform=\"translate(20 245) rotate(-90)\"");
    }

    void line(const std::vector<CurvePoint>& points, const char* colour, double width) {
        if (points.empty()) return;
        const size_t stride = (points.size() + kMaxPoints - 1) / kMaxPoints;
        out_ << "<polyline fill=\"none\" stroke=\"" << colour << "\" stroke-width=\"" << width
             << "\" points=\"";
        for (size_t i = 0; i < points.size(); i += stride) out_ << x(points[i]) << ',' << y(points[i]) << ' ';
        out_ << x(points.back()) << ',' << y(points.back()) << "\"/>\n";
    }

    void legend_entry(double row, const std::vector<CurvePoint>& points, const char* name,
                      const char* colour) {
        if (points.empty()) return;
        const double right = kWidth - kRight - 12, baseline = kTop + 22 + 20 * row;
        text(right, baseline, "end", name + (" " + fixed(points.back().loss, 4)));
        out_ << "<path d=\"M" << right - 178 << ' ' << baseline - 4 << " h22\" stroke=\"" << colour
             << "\" stroke-width=\"3\"/>\n";
    }

    void legend() {
        legend_entry(0, finite_points(curve_.validation), "validation", kValidationColour);
        legend_entry(1, finite_points(curve_.train), "training", kTrainColour);
    }

    const LossCurve& curve_;
    CurveAxes axes_;
    std::ostringstream out_;
};

}  // namespace

std::string curve_svg(const LossCurve& curve) {
    return Picture(curve).svg();
}

void write_curve(const LossCurve& curve, const std::filesystem::path& path) {
    write_atomically(path, curve_svg(curve));
}

}  // namespace speedrun
