#pragma once
// What may be said of measured numbers. Every sentence of a report that judges a claim comes from here.

#include <string>
#include <vector>

namespace resnet {

/// The larger one; NaN if one is: std::max would drop it.
double larger(double a, double b);

/// Mean and standard error of b - a over the last `window` steps. Where both nets saw the same batches, what makes a
/// batch hard or easy cancels. The error takes steps as independent, which those of one run are not quite.
struct Difference {
  double mean = 0, error = 0;
};
Difference paired_difference(const std::vector<double>& a, const std::vector<double>& b, size_t window);

enum class Side { lower, level, higher, unknown };
/// Level: within two standard errors. Unknown: not finite.
Side side_of(const Difference& b_minus_a);
/// "lower", "level within two standard errors", "higher", "not comparable: a loss is not finite".
const char* words(Side side);

/// Of the ratios first layer's gradient over last layer's, of a plain and a residual net of one depth. Layers differ in
/// shape, so that a ratio by itself says little: what counts are decades, and the two nets beside each other.
std::string judge_gradients(double plain, double residual);

/// Of a training run: `last` is the mean loss of its last steps, `guessing` the loss of a net that knows nothing.
/// `most_bad` losses in a row that are not finite end a run.
std::string judge_training(const std::vector<double>& losses, double last, double guessing, size_t most_bad);

}  // namespace resnet
