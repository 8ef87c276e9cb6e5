#include "ops/matrix.h"

namespace resnet {

void add_product(const double* a, const double* b, double* c, int64_t m, int64_t k, int64_t n) {
  for (int64_t i = 0; i < m; ++i) {
    double* row = c + i * n;
    const double* left = a + i * k;
    int64_t p = 0;
    // Four terms a pass: the row of c is loaded and stored a quarter as often.
    for (; p + 4 <= k; p += 4) {
      const double w0 = left[p], w1 = left[p + 1], w2 = left[p + 2], w3 = left[p + 3];
      const double *b0 = b + p * n, *b1 = b0 + n, *b2 = b1 + n, *b3 = b2 + n;
      for (int64_t j = 0; j < n; ++j) row[j] += (w0 * b0[j] + w1 * b1[j]) + (w2 * b2[j] + w3 * b3[j]);
    }
    for (; p < k; ++p) {
      const double w = left[p];
      const double* right = b + p * n;
      for (int64_t j = 0; j < n; ++j) row[j] += w * right[j];
    }
  }
}

}  // namespace resnet
