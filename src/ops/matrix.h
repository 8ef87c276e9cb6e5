#pragma once
// The matrix product behind the reference loops of convolution and linear layers.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace resnet {

/// c[m][n] += a[m][k] * b[k][n], row-major.
void add_product(const double* a, const double* b, double* c, int64_t m, int64_t k, int64_t n);

/// Row-major [rows][columns] of T to doubles, [columns][rows] when transposed.
template <class T>
std::vector<double> transposed(const T* from, int64_t rows, int64_t columns) {
  std::vector<double> to(static_cast<size_t>(rows * columns));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c)
      to[static_cast<size_t>(c * rows + r)] = static_cast<double>(from[r * columns + c]);
  }
  return to;
}

}  // namespace resnet
