#pragma once
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "record/report/axis.h"

namespace speedrun {

// `text` as the content of an XML or HTML element or attribute: markup is escaped, control characters and
// bytes that are not UTF-8 become U+FFFD, so that no log can break a page.
std::string xml_text(std::string_view text);

struct Point {
    double x = 0, y = 0;
};

// A picture being drawn. Coordinates are pixels from the left and the top; `classes` name looks that
// figure_css() gives them; a `hint` is shown when the pointer rests on the element.
class Svg {
  public:
    Svg(double width, double height, std::string description);

    void line(Point from, Point to, std::string_view classes);
    void polyline(std::span<const Point> points, std::string_view classes);
    void polygon(std::span<const Point> points, std::string_view classes);
    void rectangle(Point corner, double width, double height, std::string_view classes,
                   std::string_view hint = {});
    void circle(Point centre, double radius, std::string_view classes, std::string_view hint = {});
    // `anchor`: "start", "middle", "end".
    void text(Point at, std::string_view anchor, std::string_view words, std::string_view classes = {});
    void text_upwards(Point middle, std::string_view words);
    // What is drawn until end_clip() shows inside this rectangle only.
    void begin_clip(Point corner, double width, double height);
    void end_clip();

    // To stand in an HTML page that holds figure_css().
    std::string in_page() const;
    // A file of its own, in light colours.
    std::string alone() const;

  private:
    void points(const char* element, std::span<const Point> points, std::string_view classes);
    void close(std::string_view element, std::string_view hint);
    std::string with_style(std::string_view style) const;

    double width_, height_;
    std::string description_, body_;
    int clips_ = 0;
};

// Pictures of a page, under the names that their files get.
using NamedFigures = std::vector<std::pair<std::string, Svg>>;

// Where values lie in a picture.
struct Plot {
    double left = 0, top = 0, width = 0, height = 0;
    Axis x, y;

    double right() const { return left + width; }
    double bottom() const { return top + height; }
    Point at(double x_value, double y_value) const {
        return {left + x.share(x_value) * width, top + (1 - y.share(y_value)) * height};
    }
};

// Grid lines at the ticks, their labels, and the names of the axes. Without `y_name` there is no y axis.
void draw_axes(Svg& svg, const Plot& plot, std::string_view x_name, std::string_view y_name);

// What the classes of all pictures look like; `dark`: on a dark ground.
std::string figure_css(bool dark);

// Groups of runs have this many looks: classes "line0" and "fill0", "line1", ...
inline constexpr size_t kSeriesLooks = 10;

}  // namespace speedrun
