#include "plot/chart.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "plot/canvas.h"

namespace resnet {

namespace {

using namespace drawing;

/// Relative luminance and contrast ratio of WCAG 2.1.
double luminance(Color c) {
  const auto linear = [](double v) { return v <= 0.04045 ? v / 12.92 : std::pow((v + 0.055) / 1.055, 2.4); };
  return 0.2126 * linear(c.red) + 0.7152 * linear(c.green) + 0.0722 * linear(c.blue);
}
double contrast(Color a, Color b) {
  const auto [low, high] = std::minmax({luminance(a), luminance(b)});
  return (high + 0.05) / (low + 0.05);
}

/// A curve's colour for its name: as far towards the ink as text needs to be read (4.5 to 1, WCAG AA).
Color legible(Color color, const Palette& palette) {
  constexpr int kParts = 10;
  for (int part = 0; part < kParts; ++part) {
    const double ink = static_cast<double>(part) / kParts;
    const auto mixed = [&](double from, double to) { return from + ink * (to - from); };
    const Color text{mixed(color.red, palette.ink.red), mixed(color.green, palette.ink.green),
                     mixed(color.blue, palette.ink.blue)};
    if (contrast(text, palette.background) >= 4.5) return text;
  }
  return palette.ink;
}

/// Dash and gap lengths. The round ends of a line take a line's width from each gap, so that 0.1 is a dot. Five
/// patterns and seven colours: 35 curves differ.
const std::array<std::vector<double>, 5> kDashes{
    {{}, {6, 6}, {0.1, 4.6}, {7, 5, 0.1, 5}, {7, 4.5, 0.1, 4.5, 0.1, 4.5}}};

constexpr double kLabelGap = 18;      // between the baselines of two curve labels
constexpr double kSampleLength = 28;  // of the line before a curve's name: two periods of most dash patterns

struct Range {
  double low = 0;
  double high = 1;
};

/// The value to draw; nothing for a gap. Magnitudes at the ends of double's range would overflow the axis.
std::optional<double> usable(double value, bool log_scale) {
  if (!std::isfinite(value) || std::abs(value) > 1e290) return std::nullopt;
  if (log_scale) return value > 1e-290 ? std::optional(std::log10(value)) : std::nullopt;
  return std::abs(value) < 1e-290 ? 0.0 : value;
}

/// Smallest of 1, 2, 5 times a power of ten that cuts `span` into at most `most` steps.
double nice_step(double span, int most) {
  const double raw = span / most;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= raw * (1 - 1e-9)) return factor * power;
  }
  return 10 * power;
}

struct Tick {
  double at = 0;  // on the axis: the logarithm on a log axis
  std::string label;
};

struct Axis {
  Range range;
  std::vector<Tick> ticks;
};

std::string tick_label(double value, double step, double largest) {
  if (largest >= 1e6 || step < 1e-4) return fmt::format("{:.6g}", value);
  const int decimals = std::max(0, -static_cast<int>(std::floor(std::log10(step) + 1e-9)));
  return fmt::format("{:.{}f}", value == 0 ? 0.0 : value, decimals);  // no "-0"
}

/// 0.918, 1.20, 345, 1.2e-05
std::string three_digits(double value) {
  const double magnitude = std::abs(value);
  if (magnitude >= 99.95 && magnitude < 1e6) return fmt::format("{:.0f}", value);
  if (magnitude >= 1e6 || (magnitude < 1e-4 && magnitude > 0)) return fmt::format("{:.3g}", value);
  return fmt::format("{:#.3g}", value);
}

/// `snap`: the axis ends at ticks; otherwise at the data.
Axis linear_axis(Range data, int most_ticks, bool snap, bool whole_numbers) {
  const double magnitude = std::max(std::abs(data.low), std::abs(data.high));
  if (data.high - data.low <= 1e-9 * magnitude || magnitude == 0) {
    const double pad = magnitude > 0 && !whole_numbers ? 0.1 * magnitude : 0.5;
    data = {data.low - pad, data.high + pad};
  }
  double step = nice_step(data.high - data.low, most_ticks);
  if (whole_numbers) step = std::max(step, 1.0);
  const double slack = 1e-6;  // of a step, for bounds that are ticks but for rounding
  const double first = snap ? std::floor(data.low / step + slack) : std::ceil(data.low / step - slack);
  const double last = snap ? std::ceil(data.high / step - slack) : std::floor(data.high / step + slack);
  Axis axis{.range = snap ? Range{first * step, last * step} : data, .ticks = {}};
  const double largest = std::max(std::abs(axis.range.low), std::abs(axis.range.high));
  for (double i = first; i <= last; ++i) axis.ticks.push_back({i * step, tick_label(i * step, step, largest)});
  return axis;
}

/// `data` in decades. Ticks at 1, 2, 5 times each power of ten when there are few decades, else at powers only.
/// `snap`: the axis ends at ticks; otherwise at the data.
Axis log_axis(Range data, int most_ticks, bool snap) {
  const bool one_value = data.high - data.low < 1e-9;
  const Range range = one_value ? Range{data.low - 0.1, data.high + 0.1} : data;
  const double decades = range.high - range.low;
  std::vector<double> ticks;
  if (decades <= 2 && (snap || 3 * decades <= most_ticks)) {
    for (double power = std::floor(range.low) - 1; power <= std::ceil(range.high); ++power) {
      for (const double factor : {1.0, 2.0, 5.0}) ticks.push_back(power + std::log10(factor));
    }
  } else {
    const double step = std::max(1.0, nice_step(decades, most_ticks));
    for (double i = std::floor(range.low / step); i <= std::ceil(range.high / step); ++i) ticks.push_back(i * step);
  }
  const double slack = 1e-9;
  Axis axis{.range = range, .ticks = {}};
  if (snap) {  // the ticks around the data
    while (ticks.size() > 2 && ticks[1] <= range.low + slack) ticks.erase(ticks.begin());
    while (ticks.size() > 2 && ticks[ticks.size() - 2] >= range.high - slack) ticks.pop_back();
    axis.range = {ticks.front(), ticks.back()};
  } else {
    std::erase_if(ticks, [&](double tick) { return tick < range.low - slack || tick > range.high + slack; });
    if (one_value) {
      ticks = {data.low};
    } else if (ticks.size() < 2) {
      ticks = {data.low, data.high};
    }
  }
  for (const double tick : ticks) axis.ticks.push_back({tick, fmt::format("{:.6g}", std::pow(10.0, tick))});
  return axis;
}

/// A point of a band; `low` is -HUGE_VAL where it lies below every logarithm.
struct Span {
  double x, low, high;
};

/// A curve and its band as runs of points without a gap, in axis coordinates.
struct Curve {
  std::string name;
  std::vector<std::vector<Point>> runs;
  std::vector<std::vector<Span>> bands;
  double last_value = 0;  // of y, as given
  int style = -1;
  size_t points = 0;
};

template <class T>
void extend(std::vector<std::vector<T>>& runs, bool& open, const std::optional<T>& next) {
  if (next && !open) runs.emplace_back();
  if (next) runs.back().push_back(*next);
  open = next.has_value();
}

std::optional<Span> span_of(const std::optional<double>& x, double low, double high, bool log_y) {
  auto bottom = usable(low, log_y);
  if (!bottom && log_y && low <= 0) bottom = -HUGE_VAL;
  const auto top = usable(high, log_y);
  if (!x || !bottom || !top) return std::nullopt;
  return Span{*x, *bottom, *top};
}

Curve curve_of(const Series& series, const Chart& chart) {
  check(series.x.size() == series.y.size(), "chart: a series whose x and y differ in length");
  const bool band = !series.low.empty() || !series.high.empty();
  check(!band || (series.low.size() == series.x.size() && series.high.size() == series.x.size()),
        "chart: a band whose bounds and x differ in length");
  Curve curve;
  curve.name = drawable(series.name);
  curve.style = series.style;
  bool open = false;
  bool band_open = false;
  for (size_t i = 0; i < series.x.size(); ++i) {
    const auto x = usable(series.x[i], chart.log_x);
    const auto y = usable(series.y[i], chart.log_y);
    const bool drawn = x && y;
    extend(curve.runs, open, drawn ? std::optional(Point{*x, *y}) : std::nullopt);
    if (band) extend(curve.bands, band_open, span_of(x, series.low[i], series.high[i], chart.log_y));
    if (!drawn) continue;
    curve.last_value = series.y[i];
    ++curve.points;
  }
  return curve;
}

/// Where points share a column of pixels, only the first, lowest, highest and last can be seen: a curve of a
/// million steps draws the same with a few thousand points.
std::vector<Point> thinned(const std::vector<Point>& pixels) {
  std::vector<Point> out;
  for (size_t begin = 0; begin < pixels.size();) {
    size_t end = begin;
    size_t low = begin;
    size_t high = begin;
    for (; end < pixels.size() && std::floor(2 * pixels[end].x) == std::floor(2 * pixels[begin].x); ++end) {
      if (pixels[end].y < pixels[low].y) low = end;
      if (pixels[end].y > pixels[high].y) high = end;
    }
    std::array<size_t, 4> kept{begin, std::min(low, high), std::max(low, high), end - 1};
    for (size_t i = 0; i < kept.size(); ++i) {
      if (i == 0 || kept[i] != kept[i - 1]) out.push_back(pixels[kept[i]]);
    }
    begin = end;
  }
  return out;
}

/// Baselines for labels that want to be at `wanted`: in the same order, `gap` apart, between top and bottom.
std::vector<double> spread(const std::vector<double>& wanted, double gap, double top, double bottom) {
  std::vector<size_t> order(wanted.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return wanted[a] < wanted[b]; });
  const double room = wanted.size() > 1 ? (bottom - top) / static_cast<double>(wanted.size() - 1) : gap;
  gap = std::min(gap, room);
  std::vector<double> at = wanted;
  double previous = top - gap;
  for (const size_t i : order) previous = at[i] = std::max(wanted[i], previous + gap);
  double next = bottom + gap;
  for (auto it = order.rbegin(); it != order.rend(); ++it) next = at[*it] = std::min(at[*it], next - gap);
  return at;
}

class Panel {
 public:
  Panel(Canvas& canvas, const Palette& palette, const Chart& chart, Box box)
      : canvas_(canvas), palette_(palette), chart_(chart), box_(box) {
    for (const Series& series : chart.series) curves_.push_back(curve_of(series, chart));
  }

  void draw() {
    find_ranges();
    lay_out();
    choose_x_ticks();
    draw_frame();
    for (size_t i = 0; i < curves_.size(); ++i) draw_band(i);
    for (size_t i = 0; i < curves_.size(); ++i) draw_curve(i);
    draw_labels();
  }

 private:
  size_t style_of(size_t i) const { return curves_[i].style < 0 ? i : static_cast<size_t>(curves_[i].style); }
  Color color_of(size_t i) const { return palette_.curves[style_of(i) % palette_.curves.size()]; }

  /// More points than pixels can show.
  bool dense(size_t points) const { return static_cast<double>(points) > 4 * (axes_.right - axes_.left); }

  /// On a jagged line of too many points a dash pattern is but noise.
  const std::vector<double>& dashes_of(size_t i) const {
    return kDashes[dense(curves_[i].points) ? 0 : style_of(i) % kDashes.size()];
  }

  void find_ranges() {
    Range x{HUGE_VAL, -HUGE_VAL};
    Range y = x;
    const auto include = [](Range& range, double value) {
      if (std::isfinite(value)) range = {std::min(range.low, value), std::max(range.high, value)};
    };
    const auto include_x = [&](double value) {
      include(x, value);
      whole_x_ = whole_x_ && value == std::floor(value);
    };
    for (const Curve& curve : curves_) {
      for (const auto& run : curve.runs) {
        for (const Point& point : run) {
          include_x(point.x);
          include(y, point.y);
        }
      }
      for (const auto& band : curve.bands) {
        for (const Span& span : band) {
          include_x(span.x);
          include(y, span.low);
          include(y, span.high);
        }
      }
    }
    has_data_ = x.low <= x.high;
    if (!has_data_) return;
    x_.range = x;
    const int y_ticks = std::clamp(static_cast<int>((box_.bottom - box_.top) / 50), 2, 8);
    y_ = chart_.log_y ? log_axis(y, y_ticks, true) : linear_axis(y, y_ticks, true, false);
  }

  /// The axes' rectangle: what the tick labels at the left and the curve labels at the right leave.
  void lay_out() {
    canvas_.font(kTickSize);
    double ticks = 0;
    for (const Tick& tick : y_.ticks) ticks = std::max(ticks, canvas_.width(tick.label));
    const double sample = curves_.size() > 1 ? kSampleLength + 6 : 0;
    const double most = 0.42 * (box_.right - box_.left) - sample;
    double labels = 0;
    for (Curve& curve : curves_) {
      values_.push_back(curve.points > 0 ? fmt::format(" {}", three_digits(curve.last_value)) : " no data");
      canvas_.font(kLabelSize);
      const double value = canvas_.width(values_.back());
      canvas_.font(kLabelSize, true);
      curve.name = canvas_.fitted(curve.name, std::max(most - value, 0.0));
      labels = std::max(labels, sample + canvas_.width(curve.name) + value);
    }
    const double head = (chart_.title.empty() ? 0 : 24) + (chart_.y_label.empty() ? 0 : 20) + 12;
    axes_ = {box_.left + ticks + 8, box_.top + head, box_.right - labels - 18,
             box_.bottom - (chart_.x_label.empty() ? 26 : 46)};
  }

  void choose_x_ticks() {
    if (!has_data_) return;
    const Range x = x_.range;
    // Epochs get one tick each where there is room.
    const bool few_digits = whole_x_ && !chart_.log_x && x.low >= 0 && x.high < 100;
    const int most = std::clamp(static_cast<int>((axes_.right - axes_.left) / (few_digits ? 28 : 54)), 2, 12);
    x_ = chart_.log_x ? log_axis(x, most, false) : linear_axis(x, most, false, whole_x_);
  }

  Point pixel(Point point) const {
    const auto part = [](double value, Range range) { return (value - range.low) / (range.high - range.low); };
    return {axes_.left + part(point.x, x_.range) * (axes_.right - axes_.left),
            axes_.bottom - part(point.y, y_.range) * (axes_.bottom - axes_.top)};
  }

  void draw_frame() {
    double baseline = box_.top + 16;
    if (!chart_.title.empty()) {
      canvas_.font(kTitleSize, true);
      canvas_.color(palette_.ink);
      canvas_.text(box_.left, baseline, canvas_.fitted(drawable(chart_.title), box_.right - box_.left));
      baseline += 22;
    }
    if (!chart_.y_label.empty()) {  // above the axis: no turned head needed
      canvas_.font(kLabelSize);
      canvas_.color(palette_.quiet);
      canvas_.text(box_.left, baseline, canvas_.fitted(drawable(chart_.y_label), box_.right - box_.left));
    }
    canvas_.font(kTickSize);
    for (const Tick& tick : y_.ticks) {
      const double y = pixel({x_.range.low, tick.at}).y;
      canvas_.color(palette_.grid);
      canvas_.lines({{axes_.left, y}, {axes_.right, y}}, 1);
      canvas_.color(palette_.quiet);
      canvas_.text(axes_.left - 8, y + 4.5, tick.label, 1);
    }
    canvas_.color(palette_.axis);
    canvas_.lines({{axes_.left, axes_.bottom}, {axes_.right, axes_.bottom}}, 1);
    for (const Tick& tick : x_.ticks) {
      const double x = pixel({tick.at, y_.range.low}).x;
      canvas_.color(palette_.axis);
      canvas_.lines({{x, axes_.bottom}, {x, axes_.bottom + 4}}, 1);
      canvas_.color(palette_.quiet);
      canvas_.text(x, axes_.bottom + 19, tick.label, 0.5);
    }
    const double middle = (axes_.left + axes_.right) / 2;
    if (!chart_.x_label.empty()) {
      canvas_.font(kLabelSize);
      canvas_.color(palette_.quiet);
      canvas_.text(middle, axes_.bottom + 40, drawable(chart_.x_label), 0.5);
    }
    if (!has_data_) {
      canvas_.font(kLabelSize);
      canvas_.color(palette_.quiet);
      canvas_.text(middle, (axes_.top + axes_.bottom) / 2, "no data", 0.5);
    }
  }

  void draw_band(size_t i) {
    canvas_.color(color_of(i), palette_.band_opacity);
    for (const auto& band : curves_[i].bands) {
      std::vector<Point> upper;
      std::vector<Point> lower;
      for (const Span& span : band) {
        upper.push_back(pixel({span.x, span.high}));
        lower.push_back(pixel({span.x, std::max(span.low, y_.range.low)}));
      }
      if (dense(band.size())) {
        upper = thinned(upper);
        lower = thinned(lower);
      }
      upper.insert(upper.end(), lower.rbegin(), lower.rend());
      if (band.size() == 1) {
        canvas_.lines(upper, 6);  // an area without width would not be seen
      } else {
        canvas_.area(upper);
      }
    }
  }

  void draw_curve(size_t i) {
    const Curve& curve = curves_[i];
    canvas_.color(color_of(i));
    const bool many = dense(curve.points);
    const bool dots = static_cast<double>(curve.points) * 12 <= axes_.right - axes_.left;
    for (const auto& run : curve.runs) {
      std::vector<Point> pixels;
      for (const Point& point : run) pixels.push_back(pixel(point));
      if (many) pixels = thinned(pixels);
      if (pixels.size() > 1) canvas_.lines(pixels, many ? 1.2 : 2.2, dashes_of(i));
      for (const Point& point : pixels) {
        if (dots || pixels.size() == 1) canvas_.dot(point, 3);
      }
    }
  }

  void draw_labels() {
    std::vector<double> wanted;
    std::vector<Point> ends;
    for (const Curve& curve : curves_) {
      ends.push_back(curve.points > 0 ? pixel(curve.runs.back().back()) : Point{axes_.right, axes_.bottom});
      wanted.push_back(ends.back().y + 4.5);
    }
    const std::vector<double> baselines = spread(wanted, kLabelGap, axes_.top + 4.5, axes_.bottom + 4.5);
    for (size_t i = 0; i < curves_.size(); ++i) {
      double x = axes_.right + 16;
      canvas_.color(color_of(i));
      // A thin line says whose label it is when it had to give way, or the curve ends early.
      const bool away = std::abs(baselines[i] - wanted[i]) > 1 || axes_.right - ends[i].x > 4;
      if (curves_[i].points > 0 && away) {
        canvas_.lines({{ends[i].x + 5, ends[i].y}, {x - 3, baselines[i] - 4.5}}, 0.8, {2, 3});
      }
      if (curves_.size() > 1) {
        canvas_.lines({{x, baselines[i] - 4.5}, {x + kSampleLength, baselines[i] - 4.5}}, 2, dashes_of(i));
        x += kSampleLength + 6;
      }
      canvas_.color(legible(color_of(i), palette_));
      canvas_.font(kLabelSize, true);
      canvas_.text(x, baselines[i], curves_[i].name);
      const double end = x + canvas_.width(curves_[i].name);
      canvas_.font(kLabelSize);
      canvas_.color(palette_.ink);
      canvas_.text(end, baselines[i], values_[i]);
    }
  }

  Canvas& canvas_;
  const Palette& palette_;
  const Chart& chart_;
  Box box_;
  Box axes_{};
  std::vector<Curve> curves_;
  std::vector<std::string> values_;
  bool has_data_ = false;
  bool whole_x_ = true;
  Axis x_;
  Axis y_;
};

void draw_figure(Canvas& canvas, const std::vector<Chart>& panels, const FigureSize& size, Theme theme) {
  constexpr double kMargin = 16;
  constexpr double kBetween = 24;
  const Palette& palette = theme == Theme::dark ? kDark : kLight;
  canvas.fill_background(palette.background);
  if (panels.empty()) return;
  const size_t columns = size.columns > 0 ? std::min(static_cast<size_t>(size.columns), panels.size()) : panels.size();
  const size_t rows = (panels.size() + columns - 1) / columns;
  const auto part = [&](double length, size_t count) {
    return (length - static_cast<double>(count - 1) * kBetween) / static_cast<double>(count);
  };
  const double width = part(size.width - 2 * kMargin, columns);
  const double height = part(size.height - 1.5 * kMargin, rows);
  for (size_t i = 0; i < panels.size(); ++i) {
    const double left = kMargin + static_cast<double>(i % columns) * (width + kBetween);
    const double top = kMargin + static_cast<double>(i / columns) * (height + kBetween);
    Panel(canvas, palette, panels[i], {left, top, left + width, top + height}).draw();
  }
}

void check_size(const FigureSize& size) {
  check(size.width >= 200 && size.width <= 10000 && size.height >= 120 && size.height <= 10000 &&
            size.pixel_ratio >= 0.1 && size.pixel_ratio <= 8 && size.columns >= 0,
        "chart: figure size out of range");
}

}  // namespace

std::string render_svg(const std::vector<Chart>& panels, const FigureSize& size, Theme theme) {
  check_size(size);
  return svg_of(size.width, size.height, [&](Canvas& canvas) { draw_figure(canvas, panels, size, theme); });
}

std::string render_png(const std::vector<Chart>& panels, const FigureSize& size, Theme theme) {
  check_size(size);
  return png_of(size.width, size.height, size.pixel_ratio,
                [&](Canvas& canvas) { draw_figure(canvas, panels, size, theme); });
}

}  // namespace resnet
