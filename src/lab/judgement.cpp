#include "lab/judgement.h"

#include <algorithm>
#include <cmath>

#include "base/format.h"

namespace resnet {

double larger(double a, double b) { return std::isnan(a) || a > b ? a : b; }

Difference paired_difference(const std::vector<double>& a, const std::vector<double>& b, size_t window) {
  Difference d;
  const size_t steps = std::min({a.size(), b.size(), window});
  const auto n = static_cast<double>(steps);
  const auto gap = [&](size_t i) { return b[b.size() - steps + i] - a[a.size() - steps + i]; };
  double squares = 0;
  for (size_t i = 0; i < steps; ++i) d.mean += gap(i) / n;
  for (size_t i = 0; i < steps; ++i) squares += (gap(i) - d.mean) * (gap(i) - d.mean);
  if (steps > 1) d.error = std::sqrt(squares / (n - 1) / n);
  return d;
}

Side side_of(const Difference& d) {
  if (!std::isfinite(d.mean) || !std::isfinite(d.error)) return Side::unknown;
  if (std::abs(d.mean) <= 2 * d.error) return Side::level;
  return d.mean < 0 ? Side::lower : Side::higher;
}

const char* words(Side side) {
  switch (side) {
    case Side::lower: return "lower";
    case Side::level: return "level within two standard errors";
    case Side::higher: return "higher";
    case Side::unknown: break;
  }
  return "not comparable: a loss is not finite";
}

std::string judge_gradients(double plain, double residual) {
  if (!std::isfinite(plain) || !std::isfinite(residual)) return "not comparable: a gradient is not finite";
  constexpr double kDecade = 10;
  const bool grows = plain > residual * kDecade && plain > kDecade;
  const char* of_plain = plain < residual / kDecade && plain < 1 / kDecade ? "the plain net's gradient vanishes"
                         : grows ? "the plain net's gradient does not vanish here, it grows towards the input"
                                 : "no clear difference: the claim does not show here";
  if (residual <= kDecade) return of_plain;
  return fmt::format("{}; the residual net's grows towards the input{}", of_plain, grows ? " too" : "");
}

std::string judge_training(const std::vector<double>& losses, double last, double guessing, size_t most_bad) {
  const auto bad = [](double loss) { return !std::isfinite(loss); };
  const auto skipped = std::count_if(losses.begin(), losses.end(), bad);
  const size_t tail = std::min(most_bad, losses.size());
  if (tail > 0 && std::all_of(losses.end() - static_cast<std::ptrdiff_t>(tail), losses.end(), bad)) {
    return fmt::format(
        "from step {} on the loss is not finite: it does not train",
        std::find_if(losses.rbegin(), losses.rend(), [&](double v) { return !bad(v); }).base() - losses.begin() + 1);
  }
  std::string text = last < 0.9 * guessing ? fmt::format("it trains (guessing is {:.3f})", guessing)
                                           : fmt::format("it is not clearly below guessing ({:.3f})", guessing);
  if (skipped > 0) text += fmt::format("; {} steps had no finite loss and were not applied", skipped);
  return text;
}

}  // namespace resnet
