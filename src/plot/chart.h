#pragma once
// Line charts as SVG or PNG, drawn with cairo. The same data gives the same bytes (on one machine: text is drawn
// with its "sans-serif" font). Colours: Okabe and Ito's, told apart by colour-blind readers too; the dash pattern
// tells curves apart in a grey print.

#include <string>
#include <vector>

namespace resnet {

/// One curve. Points run in the order given; one that is NaN, infinite or, on a log axis, not positive is a gap.
/// The band from `low` to `high`, if given, is drawn translucent under all curves (a spread over seeds, say) and counts
/// for the axis's range. It has gaps as the curve has, except that on a log axis a `low` that is not positive
/// reaches down to the axis's foot.
struct Series {
  std::string name;
  std::vector<double> x;
  std::vector<double> y;     // as long as x
  std::vector<double> low;   // of the band: as long as x, or empty
  std::vector<double> high;  // as long as low
  int style = -1;            // number of its hue and dash pattern; -1: its place in the chart
};

struct Chart {
  std::string title;
  std::string x_label;
  std::string y_label;
  std::vector<Series> series;
  bool log_y = false;
  bool log_x = false;
};

struct FigureSize {
  int width = 1000;  // pixels (SVG: user units), 200 to 10000
  int height = 420;
  double pixel_ratio = 2;  // PNG pixels for one unit
  int columns = 0;         // panels in a row, further rows below; 0: all in one row
};

/// The page the figure lies on. Curves keep their order of hues from one to the other.
enum class Theme { light, dark };

/// The panels side by side. Each curve is labelled at its right end with its name and last value (and a sample of its
/// line, where there are several), outside the axes, so that no legend covers a curve. Returns the file's bytes. Throws
/// InternalError when x and y, or the band, differ in length.
std::string render_svg(const std::vector<Chart>& panels, const FigureSize& size = {}, Theme theme = Theme::light);
std::string render_png(const std::vector<Chart>& panels, const FigureSize& size = {}, Theme theme = Theme::light);

}  // namespace resnet
