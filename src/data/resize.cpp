#include "data/resize.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace resnet {

namespace {

// 8 bits for the result and two for sums beyond 0..255, which filters with negative lobes reach.
constexpr int kFractionBits = 32 - 8 - 2;
constexpr int32_t kHalf = int32_t{1} << (kFractionBits - 1);

struct Filter {
  const char* name;
  double support;            // the weight is 0 at and beyond this distance
  double (*weight)(double);  // of a distance in pixels
};

double triangle(double x) {
  x = std::abs(x);
  return x < 1.0 ? 1.0 - x : 0.0;
}

const Filter& filter_of(Interpolation interpolation) {
  static constexpr Filter kFilters[] = {
      {.name = "bilinear", .support = 1.0, .weight = triangle},
  };
  return kFilters[static_cast<size_t>(interpolation)];
}

uint8_t to_byte(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> kFractionBits, 0, 255)); }

// One column of `rows` results. Down the column, because its weights then stay in registers.
template <int32_t kCount>
void resize_column(const uint8_t* in, int64_t in_stride, uint8_t* out, int64_t out_stride, int64_t rows,
                   const int32_t* weights, int32_t count) {
  int32_t kept[kCount == 0 ? 1 : kCount];
  for (int32_t k = 0; k < kCount; ++k) kept[k] = weights[k];
  for (int64_t y = 0; y < rows; ++y, in += in_stride, out += out_stride) {
    int32_t sum = kHalf;
    if constexpr (kCount == 0) {
      for (int32_t k = 0; k < count; ++k) sum += in[k] * weights[k];
    } else {
      for (int32_t k = 0; k < kCount; ++k) sum += in[k] * kept[k];
    }
    *out = to_byte(sum);
  }
}

// in [rows, taps.in] -> out [rows, taps.out]
void resize_along_x(const uint8_t* in, uint8_t* out, int64_t rows, const ResizeTaps& taps) {
  constexpr int64_t kRows = 32;  // of a photo, so many rows share the cache while x moves on
  for (int64_t y = 0; y < rows; y += kRows) {
    const int64_t some = std::min(kRows, rows - y);
    for (int64_t x = 0; x < taps.out(); ++x) {
      const auto [first, count] = taps.span(x);
      // Growing takes one or two pixels, shrinking any number.
      const auto column = count == 1 ? resize_column<1> : count == 2 ? resize_column<2> : resize_column<0>;
      column(in + y * taps.in() + first, taps.in(), out + y * taps.out() + x, taps.out(), some, taps.weights(x), count);
    }
  }
}

// `width` neighbours of one row of results, whose sums stay in registers.
template <int width>
void resize_run(const uint8_t* in, int64_t stride, uint8_t* out, const int32_t* weights, int32_t count) {
  int32_t sums[width];
  std::fill_n(sums, width, kHalf);
  for (int32_t k = 0; k < count; ++k) {
    const uint8_t* row = in + k * stride;
    for (int x = 0; x < width; ++x) sums[x] += row[x] * weights[k];
  }
  for (int x = 0; x < width; ++x) out[x] = to_byte(sums[x]);
}

// in [taps.in, width] -> out [taps.out, width]
void resize_along_y(const uint8_t* in, uint8_t* out, int64_t width, const ResizeTaps& taps) {
  constexpr int kRun = 32;
  for (int64_t y = 0; y < taps.out(); ++y) {
    const auto [first, count] = taps.span(y);
    const uint8_t* from = in + first * width;
    uint8_t* to = out + y * width;
    int64_t x = 0;
    for (; x + kRun <= width; x += kRun) resize_run<kRun>(from + x, width, to + x, taps.weights(y), count);
    for (; x < width; ++x) resize_run<1>(from + x, width, to + x, taps.weights(y), count);
  }
}

}  // namespace

const char* name_of(Interpolation interpolation) { return filter_of(interpolation).name; }

Interpolation parse_interpolation(const std::string& name) {
  for (const Interpolation interpolation : {Interpolation::bilinear}) {
    if (name == name_of(interpolation)) return interpolation;
  }
  throw UserError("interpolation: found '{}'; expected bilinear", escape_control(name));
}

ResizeTaps::ResizeTaps(int64_t in, int64_t out, Interpolation interpolation) : in_(in) {
  check(in >= 1 && in <= kMaxImageSide && out >= 1 && out <= kMaxImageSide, "ResizeTaps: a size is out of range");
  const Filter& filter = filter_of(interpolation);
  const double scale = static_cast<double>(in) / static_cast<double>(out);
  const double widening = std::max(scale, 1.0);  // antialias: when shrinking, the filter covers what falls together
  const double support = filter.support * widening;
  const double inverse_widening = 1.0 / widening;
  stride_ = static_cast<int64_t>(std::ceil(support)) * 2 + 1;
  spans_.resize(static_cast<size_t>(out));
  weights_.resize(static_cast<size_t>(out * stride_));
  std::vector<double> exact(static_cast<size_t>(stride_));
  for (int64_t i = 0; i < out; ++i) {
    // The order of these operations is Pillow's: another would round differently.
    const double center = (static_cast<double>(i) + 0.5) * scale;
    const int64_t first = std::max<int64_t>(0, static_cast<int64_t>(center - support + 0.5));
    const int64_t last = std::min<int64_t>(in, static_cast<int64_t>(center + support + 0.5));
    const auto count = static_cast<size_t>(last - first);
    double total = 0.0;
    for (size_t k = 0; k < count; ++k) {
      exact[k] =
          filter.weight((static_cast<double>(static_cast<int64_t>(k) + first) - center + 0.5) * inverse_widening);
      total += exact[k];
    }
    int32_t* weights = weights_.data() + i * stride_;
    for (size_t k = 0; k < count; ++k) {
      const double share = (total != 0.0 ? exact[k] / total : exact[k]) * (int32_t{1} << kFractionBits);
      weights[k] = static_cast<int32_t>(share < 0 ? share - 0.5 : share + 0.5);
    }
    spans_[static_cast<size_t>(i)] = {static_cast<int32_t>(first), static_cast<int32_t>(count)};
  }
}

namespace {

int64_t checked_side(int64_t side) {
  if (side < 1 || side > kMaxImageSide) {
    throw UserError("resize: found an image side of {} pixels; expected 1 to {}", side, kMaxImageSide);
  }
  return side;
}

}  // namespace

Resizer::Resizer(int64_t in_height, int64_t in_width, int64_t out_height, int64_t out_width,
                 Interpolation interpolation)
    : columns_(checked_side(in_width), checked_side(out_width), interpolation),
      rows_(checked_side(in_height), checked_side(out_height), interpolation) {}

void Resizer::resize(std::span<const uint8_t> in, std::span<uint8_t> out, std::vector<uint8_t>& scratch) const {
  check(static_cast<int64_t>(in.size()) == in_pixels(), "Resizer: the input is not of the input's size");
  check(static_cast<int64_t>(out.size()) == out_pixels(), "Resizer: the output is not of the output's size");
  // A side that stays is not filtered, as in Pillow; the filter of equal sizes is the identity anyway.
  const bool change_width = columns_.out() != columns_.in();
  const bool change_height = rows_.out() != rows_.in();
  if (!change_height && !change_width) {
    std::copy(in.begin(), in.end(), out.begin());
  } else if (!change_height) {
    resize_along_x(in.data(), out.data(), rows_.in(), columns_);
  } else if (!change_width) {
    resize_along_y(in.data(), out.data(), columns_.out(), rows_);
  } else {
    scratch.resize(static_cast<size_t>(rows_.in() * columns_.out()));
    resize_along_x(in.data(), scratch.data(), rows_.in(), columns_);
    resize_along_y(scratch.data(), out.data(), columns_.out(), rows_);
  }
}

}  // namespace resnet
