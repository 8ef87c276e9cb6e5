#pragma once
// What all pictures are drawn with: the page's colours and a few words for cairo. Of this folder alone.

#include <cairo.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace resnet::drawing {

struct Color {
  double red, green, blue;
};
constexpr Color rgb(uint32_t hex) {
  return {((hex >> 16) & 255) / 255.0, ((hex >> 8) & 255) / 255.0, (hex & 255) / 255.0};
}

struct Palette {
  Color background, ink, quiet, axis, grid;
  double band_opacity;
  std::array<Color, 7> curves;
};
/// Okabe and Ito 2008, the ones that stand out on white first; yellow does not and is left out.
inline constexpr Palette kLight{.background = rgb(0xffffff),
                                .ink = rgb(0x222222),
                                .quiet = rgb(0x666666),
                                .axis = rgb(0x888888),
                                .grid = rgb(0xe6e6e6),
                                .band_opacity = 0.18,
                                .curves = {{rgb(0x0072b2), rgb(0xd55e00), rgb(0x009e73), rgb(0xcc79a7), rgb(0x000000),
                                            rgb(0x56b4e9), rgb(0xe69f00)}}};
/// The same hues, light enough for a dark page; there yellow stands out and orange is too near to vermilion.
inline constexpr Palette kDark{.background = rgb(0x14171c),
                               .ink = rgb(0xe8eaed),
                               .quiet = rgb(0xa9b0ba),
                               .axis = rgb(0x7d8590),
                               .grid = rgb(0x2a2f37),
                               .band_opacity = 0.25,
                               .curves = {{rgb(0x56b4e9), rgb(0xf0803c), rgb(0x2fbf93), rgb(0xe08fbd), rgb(0xf2f2f2),
                                           rgb(0x8c9eff), rgb(0xf0e442)}}};

inline constexpr double kTitleSize = 17;
inline constexpr double kLabelSize = 14;
inline constexpr double kTickSize = 13;

struct Point {
  double x, y;
};

struct Box {
  double left, top, right, bottom;
};

/// Cairo fails for good on text that is not UTF-8 and on noncharacters, and control characters have no glyph: all
/// become
/// '?'.
std::string drawable(const std::string& text);

/// Thin words for cairo.
class Canvas {
 public:
  explicit Canvas(cairo_surface_t* surface) : cairo_(cairo_create(surface), &cairo_destroy) {
    // Without hinting, text is as wide in the SVG as in the PNG and at any zoom.
    const std::unique_ptr<cairo_font_options_t, decltype(&cairo_font_options_destroy)> options(
        cairo_font_options_create(), &cairo_font_options_destroy);
    cairo_font_options_set_hint_metrics(options.get(), CAIRO_HINT_METRICS_OFF);
    cairo_font_options_set_hint_style(options.get(), CAIRO_HINT_STYLE_NONE);
    cairo_font_options_set_antialias(options.get(), CAIRO_ANTIALIAS_GRAY);
    cairo_set_font_options(cairo_.get(), options.get());
    cairo_set_line_join(cairo_.get(), CAIRO_LINE_JOIN_ROUND);
    cairo_set_line_cap(cairo_.get(), CAIRO_LINE_CAP_ROUND);
  }
  void scale(double factor) { cairo_scale(cairo_.get(), factor, factor); }
  void fill_background(Color c) {
    color(c);
    cairo_paint(cairo_.get());
  }
  void color(Color c) { cairo_set_source_rgb(cairo_.get(), c.red, c.green, c.blue); }
  void color(Color c, double opacity) { cairo_set_source_rgba(cairo_.get(), c.red, c.green, c.blue, opacity); }
  void font(double size, bool bold = false) {
    cairo_select_font_face(cairo_.get(), "sans-serif", CAIRO_FONT_SLANT_NORMAL,
                           bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_font_size(cairo_.get(), size);
  }
  double width(const std::string& text) {
    cairo_text_extents_t extents;
    cairo_text_extents(cairo_.get(), text.c_str(), &extents);
    return extents.x_advance;
  }
  /// `align`: 0 starts at x, 0.5 is centred, 1 ends at x.
  void text(double x, double y, const std::string& text, double align = 0) {
    cairo_move_to(cairo_.get(), x - align * width(text), y);
    cairo_show_text(cairo_.get(), text.c_str());
    cairo_new_path(cairo_.get());
  }
  void lines(const std::vector<Point>& points, double line_width, const std::vector<double>& dashes = {}) {
    cairo_set_line_width(cairo_.get(), line_width);
    cairo_set_dash(cairo_.get(), dashes.data(), static_cast<int>(dashes.size()), 0);
    for (const Point& point : points) cairo_line_to(cairo_.get(), point.x, point.y);
    cairo_stroke(cairo_.get());
  }
  void area(const std::vector<Point>& outline) {
    for (const Point& point : outline) cairo_line_to(cairo_.get(), point.x, point.y);
    cairo_close_path(cairo_.get());
    cairo_fill(cairo_.get());
  }
  void dot(Point center, double radius) {
    cairo_arc(cairo_.get(), center.x, center.y, radius, 0, 2 * M_PI);
    cairo_fill(cairo_.get());
  }
  /// `text`, cut with an ellipsis to fit.
  std::string fitted(const std::string& text, double most) {
    // No glyph is narrower than two pixels or longer than four bytes: only so much is worth measuring.
    const auto longest = static_cast<size_t>(2 * std::max(most, 0.0)) + 4;
    if (text.size() <= longest && width(text) <= most) return text;
    std::string cut = text.substr(0, longest);
    while (!cut.empty()) {
      while (!cut.empty() && (static_cast<unsigned char>(cut.back()) & 0xc0) == 0x80) cut.pop_back();
      if (!cut.empty()) cut.pop_back();  // the character's first byte
      if (width(cut + "\u2026") <= most) break;
    }
    return cut + "\u2026";
  }
  cairo_status_t status() { return cairo_status(cairo_.get()); }

 private:
  std::unique_ptr<cairo_t, decltype(&cairo_destroy)> cairo_;
};

/// The file's bytes of a page that `draw` fills. Throws ResourceError limit when there is no memory for it.
std::string svg_of(int width, int height, const std::function<void(Canvas&)>& draw);
std::string png_of(int width, int height, double pixel_ratio, const std::function<void(Canvas&)>& draw);

}  // namespace resnet::drawing
