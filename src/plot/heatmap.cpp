#include "plot/heatmap.h"

#include <algorithm>

#include "base/error.h"
#include "plot/canvas.h"

namespace resnet {

namespace {

using namespace drawing;

constexpr double kMargin = 16;
constexpr double kHead = 56;  // title and the columns' label
constexpr double kLargestName = 170;
constexpr size_t kMostNumbers = 30;  // classes; cells of more have no room for a number
constexpr size_t kMostNames = 60;

/// White to the blue of the charts, by share 0..1; the least share that is not 0 can be told from 0.
Color shade(double share) {
  const Color full = kLight.curves[0];
  const double depth = share > 0 ? 0.08 + 0.92 * share : 0;
  const auto mixed = [&](double from, double to) { return from + depth * (to - from); };
  return {mixed(1, full.red), mixed(1, full.green), mixed(1, full.blue)};
}

class Matrix {
 public:
  explicit Matrix(const Heatmap& heatmap) : heatmap_(heatmap), classes_(heatmap.names.size()) {
    check(heatmap.counts.size() == classes_ && classes_ > 0, "heatmap: counts and names differ in number");
    for (const auto& row : heatmap.counts) check(row.size() == classes_, "heatmap: the matrix is not square");
    cell_ = std::clamp(760.0 / static_cast<double>(classes_), 0.5, 44.0);
    if (classes_ > kMostNumbers && classes_ <= kMostNames) cell_ = 16;
    named_ = classes_ <= kMostNames;
    side_ = cell_ * static_cast<double>(classes_);
    left_ = kMargin + 24 + (named_ ? kLargestName : 0);
    top_ = kHead + (named_ ? 22 : 0);
  }
  int width() const { return static_cast<int>(std::max(left_ + side_ + kMargin, 420.0)); }
  int height() const { return static_cast<int>(top_ + side_ + 44); }

  void draw(Canvas& canvas) const {
    canvas.fill_background(kLight.background);
    canvas.font(kTitleSize, true);
    canvas.color(kLight.ink);
    canvas.text(kMargin, kMargin + 16, canvas.fitted(drawable(heatmap_.title), width() - 2 * kMargin));
    canvas.font(kLabelSize);
    canvas.color(kLight.quiet);
    canvas.text(left_, kHead - 6, canvas.fitted(drawable(heatmap_.column_label), width() - left_ - kMargin));
    canvas.text(kMargin, top_ + side_ + 22,
                canvas.fitted(drawable(heatmap_.row_label) + "; colour: share of the row", width() - 2 * kMargin));
    for (size_t r = 0; r < classes_; ++r) draw_row(canvas, r);
    canvas.color(kLight.axis);
    canvas.lines(
        {{left_, top_}, {left_ + side_, top_}, {left_ + side_, top_ + side_}, {left_, top_ + side_}, {left_, top_}}, 1);
    if (named_) draw_names(canvas);
  }

 private:
  void draw_row(Canvas& canvas, size_t r) const {
    int64_t sum = 0;
    for (const int64_t count : heatmap_.counts[r]) sum += count;
    for (size_t c = 0; c < classes_; ++c) {
      const int64_t count = heatmap_.counts[r][c];
      if (count == 0) continue;  // the page's white; most cells of a large matrix
      const double share = static_cast<double>(count) / static_cast<double>(sum);
      const double x = left_ + static_cast<double>(c) * cell_;
      const double y = top_ + static_cast<double>(r) * cell_;
      canvas.color(shade(share));
      canvas.area({{x, y}, {x + cell_, y}, {x + cell_, y + cell_}, {x, y + cell_}});
      if (classes_ > kMostNumbers) continue;
      canvas.font(std::min(kTickSize, cell_ / 3));
      canvas.color(share > 0.5 ? kLight.background : kLight.ink);
      canvas.text(x + cell_ / 2, y + cell_ / 2 + 4.5 * std::min(kTickSize, cell_ / 3) / kTickSize,
                  std::to_string(count), 0.5);
    }
  }

  /// Rows by number and name, columns by number.
  void draw_names(Canvas& canvas) const {
    canvas.font(kTickSize);
    canvas.color(kLight.quiet);
    for (size_t k = 0; k < classes_; ++k) {
      const double middle = (static_cast<double>(k) + 0.5) * cell_;
      const std::string name = std::to_string(k) + " " + drawable(heatmap_.names[k]);
      canvas.text(left_ - 8, top_ + middle + 4.5, canvas.fitted(name, kLargestName + 12), 1);
      if (cell_ >= 20 || k % 2 == 0) canvas.text(left_ + middle, top_ - 8, std::to_string(k), 0.5);
    }
  }

  const Heatmap& heatmap_;
  size_t classes_;
  bool named_ = false;
  double cell_ = 0, side_ = 0, left_ = 0, top_ = 0;
};

}  // namespace

std::string render_svg(const Heatmap& heatmap) {
  const Matrix matrix(heatmap);
  return svg_of(matrix.width(), matrix.height(), [&](Canvas& canvas) { matrix.draw(canvas); });
}

}  // namespace resnet
