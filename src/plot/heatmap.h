#pragma once
// A matrix of counts as a picture: a confusion matrix. Drawn with cairo, as the charts are.

#include <cstdint>
#include <string>
#include <vector>

namespace resnet {

/// counts[r][c], square, of any size. Each cell's colour is its share of its row's sum, so that a class with few images
/// shows as well as one with many; up to 30 classes, cells that are not 0 carry their number.
struct Heatmap {
  std::string title;
  std::string row_label;           // what a row is
  std::string column_label;        // what a column is
  std::vector<std::string> names;  // of rows and columns alike
  std::vector<std::vector<int64_t>> counts;
};

/// The file's bytes; the same matrix gives the same bytes. The page grows with the number of classes up to a limit,
/// beyond which names are left out and cells share pixels. Throws InternalError when counts and names differ in number.
std::string render_svg(const Heatmap& heatmap);

}  // namespace resnet
