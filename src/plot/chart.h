#pragma once
// Line charts as SVG or PNG, drawn with cairo. The same data gives the same bytes (on one machine: text is drawn
// with its "sans-serif" font). Colours: Okabe and Ito's, told apart by colour-blind readers too.

#include <string>
#include <vector>

namespace resnet {

/// One curve. Points run in the order given; one that is NaN, infinite or, on a log axis, not positive is a gap.
struct Series {
  std::string name;
  std::vector<double> x;
  std::vector<double> y;  // as long as x
};

struct Chart {
  std::string title;
  std::string x_label;
  std::string y_label;
  std::vector<Series> series;
  bool log_y = false;
};

struct FigureSize {
  int width = 1000;  // pixels (SVG: user units), 200 to 10000
  int height = 420;
  double pixel_ratio = 2;  // PNG pixels for one unit
};

/// The panels side by side. Each curve is labelled at its right end with its name and last value, outside the
/// axes, so that no legend covers a curve. Returns the file's bytes. Throws InternalError when x and y differ in
/// length.
std::string render_svg(const std::vector<Chart>& panels, const FigureSize& size = {});
std::string render_png(const std::vector<Chart>& panels, const FigureSize& size = {});

}  // namespace resnet
