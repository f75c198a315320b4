#include "record/report/svg.h"

#include <fmt/core.h>

#include "util/utf8.h"

namespace speedrun {
namespace {

std::string svg_number(double value) {
    std::string text = fmt::format("{:.1f}", value);
    if (text.ends_with(".0")) text.resize(text.size() - 2);
    return text;
}

std::string attribute(std::string_view name, std::string_view value) {
    return value.empty() ? "" : " " + std::string(name) + "=\"" + xml_text(value) + "\"";
}

std::string attribute(std::string_view name, double value) {
    return attribute(name, std::string_view(svg_number(value)));
}

}  // namespace

std::string xml_text(std::string_view text) {
    std::string result;
    for (const char c : valid_utf8(text)) {
        switch (c) {
            case '<':
                result += "&lt;";
                break;
            case '>':
                result += "&gt;";
                break;
            case '&':
                result += "&amp;";
                break;
            case '"':
                result += "&quot;";
                break;
            default:
                result += c;
        }
    }
    return result;
}

Svg::Svg(double width, double height, std::string description)
    : width_(width), height_(height), description_(std::move(description)) {}

void Svg::line(Point from, Point to, std::string_view classes) {
    body_ += "<path d=\"M" + svg_number(from.x) + " " + svg_number(from.y) + "L" + svg_number(to.x) + " " +
             svg_number(to.y) + "\"" + attribute("class", classes) + "/>\n";
}

void Svg::points(const char* element, std::span<const Point> points, std::string_view classes) {
    if (points.empty()) return;
    body_ += std::string("<") + element + attribute("class", classes) + " points=\"";
    for (const Point& p : points) body_ += svg_number(p.x) + "," + svg_number(p.y) + " ";
    body_.back() = '"';
    body_ += "/>\n";
}

void Svg::polyline(std::span<const Point> points, std::string_view classes) {
    this->points("polyline", points, classes);
}

void Svg::polygon(std::span<const Point> points, std::string_view classes) {
    this->points("polygon", points, classes);
}

void Svg::close(std::string_view element, std::string_view hint) {
    if (hint.empty()) {
        body_ += "/>\n";
    } else {
        body_.append("><title>").append(xml_text(hint)).append("</title></").append(element).append(">\n");
    }
}

void Svg::rectangle(Point corner, double width, double height, std::string_view classes,
                    std::string_view hint) {
    body_ += "<rect" + attribute("x", corner.x) + attribute("y", corner.y) + attribute("width", width) +
             attribute("height", height) + attribute("class", classes);
    close("rect", hint);
}

void Svg::circle(Point centre, double radius, std::string_view classes, std::string_view hint) {
    body_ += "<circle" + attribute("cx", centre.x) + attribute("cy", centre.y) + attribute("r", radius) +
             attribute("class", classes);
    close("circle", hint);
}

void Svg::text(Point at, std::string_view anchor, std::string_view words, std::string_view classes) {
    body_ += "<text" + attribute("x", at.x) + attribute("y", at.y) + attribute("text-anchor", anchor) +
             attribute("class", classes) + ">" + xml_text(words) + "</text>\n";
}

void Svg::text_upwards(Point middle, std::string_view words) {
    body_ += "<text text-anchor=\"middle\" transform=\"translate(" + svg_number(middle.x) + " " +
             svg_number(middle.y) + ") rotate(-90)\">" + xml_text(words) + "</text>\n";
}

// Nested <svg> elements clip without ids, which would have to be unique in a whole page.
void Svg::begin_clip(Point corner, double width, double height) {
    ++clips_;
    body_ += "<svg" + attribute("x", corner.x) + attribute("y", corner.y) + attribute("width", width) +
             attribute("height", height) + " viewBox=\"" + svg_number(corner.x) + " " + svg_number(corner.y) +
             " " + svg_number(width) + " " + svg_number(height) + "\" overflow=\"hidden\">\n";
}

void Svg::end_clip() {
    --clips_;
    body_ += "</svg>\n";
}

std::string Svg::with_style(std::string_view style) const {
    return "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"figure\" role=\"img\"" +
           attribute("aria-label", description_) + attribute("width", width_) + attribute("height", height_) +
           " viewBox=\"0 0 " + svg_number(width_) + " " + svg_number(height_) + "\">\n" + std::string(style) +
           body_ + "</svg>\n";
}

std::string Svg::in_page() const {
    return with_style("");
}

std::string Svg::alone() const {
    return with_style("<style>" + figure_css(false) +
                      "</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n");
}

void draw_axes(Svg& svg, const Plot& plot, std::string_view x_name, std::string_view y_name) {
    constexpr double kUnderAxis = 17, kNameUnderAxis = 38, kNameLeft = 50;
    for (const double tick : plot.x.ticks) {
        const double x = plot.at(tick, plot.y.low).x;
        svg.line({x, plot.top}, {x, plot.bottom()}, "grid");
        svg.text({x, plot.bottom() + kUnderAxis}, "middle", plot.x.label(tick));
    }
    for (const double tick : y_name.empty() ? std::vector<double>() : plot.y.ticks) {
        const double y = plot.at(plot.x.low, tick).y;
        svg.line({plot.left, y}, {plot.right(), y}, "grid");
        svg.text({plot.left - 8, y + 4}, "end", plot.y.label(tick));
    }
    svg.line({plot.left, plot.bottom()}, {plot.right(), plot.bottom()}, "axis");
    svg.text({plot.left + plot.width / 2, plot.bottom() + kNameUnderAxis}, "middle", x_name);
    if (y_name.empty()) return;
    svg.line({plot.left, plot.top}, {plot.left, plot.bottom()}, "axis");
    svg.text_upwards({plot.left - kNameLeft, plot.top + plot.height / 2}, y_name);
}

}  // namespace speedrun
