#include "data/resize.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <numbers>

#include "base/error.h"

namespace resnet {

namespace {

// 8 bits for the result and two for sums beyond 0..255, which filters with negative lobes reach.
constexpr int kFractionBits = 32 - 8 - 2;
constexpr int32_t kOne = int32_t{1} << kFractionBits;
constexpr int32_t kHalf = kOne / 2;

struct Filter {
  const char* name;
  double support;            // the weight is 0 at and beyond this distance
  double (*weight)(double);  // of a distance in pixels; not of nearest, which is no filter
};

// The order of the operations in each filter, and the floats in Hamming's, are Pillow's: others would round otherwise.
double box(double x) { return x > -0.5 && x <= 0.5 ? 1.0 : 0.0; }
double triangle(double x) {
  x = std::abs(x);
  return x < 1.0 ? 1.0 - x : 0.0;
}
double hamming(double x) {
  x = std::abs(x);
  if (x == 0.0) return 1.0;
  if (x >= 1.0) return 0.0;
  x = x * std::numbers::pi;
  return std::sin(x) / x * (static_cast<double>(0.54f) + static_cast<double>(0.46f) * std::cos(x));
}
double bicubic(double x) {  // Keys 1981 with a = -0.5
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
  return 0.0;
}
double sinc(double x) {
  if (x == 0.0) return 1.0;
  x = x * std::numbers::pi;
  return std::sin(x) / x;
}
double lanczos(double x) { return -3.0 <= x && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0; }

/// In the order of Interpolation.
constexpr std::array<Filter, 6> kFilters = {{
    {.name = "nearest", .support = 0, .weight = nullptr},
    {.name = "box", .support = 0.5, .weight = box},
    {.name = "bilinear", .support = 1.0, .weight = triangle},
    {.name = "hamming", .support = 1.0, .weight = hamming},
    {.name = "bicubic", .support = 2.0, .weight = bicubic},
    {.name = "lanczos", .support = 3.0, .weight = lanczos},
}};

const Filter& filter_of(Interpolation interpolation) { return kFilters[static_cast<size_t>(interpolation)]; }

// The two passes. Both come down to neighbours that share their weights, so that the compiler makes vectors of them;
// twice, for the instructions every x86-64 has and for AVX2, which is two to three times as fast. All is whole numbers,
// so both give the same bytes.
constexpr int kRun = 32;  // neighbours whose sums stay in registers

/// out[x] = sum over k of in[k * stride + x] * weights[k], x < width.
template <int width>
[[gnu::always_inline]] inline void weigh(const uint8_t* in, int64_t stride, uint8_t* out, const int32_t* weights,
                                         int32_t count) {
  int32_t sums[width];
  for (int x = 0; x < width; ++x) sums[x] = kHalf;
  for (int32_t k = 0; k < count; ++k) {
    const uint8_t* row = in + k * stride;
    const int32_t weight = weights[k];
    for (int x = 0; x < width; ++x) sums[x] += row[x] * weight;
  }
  for (int x = 0; x < width; ++x) {
    const int32_t value = sums[x] >> kFractionBits;
    out[x] = static_cast<uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
  }
}

/// in [8, in_stride] -> out [8, out_stride], out(x, y) = in(y, x) for 8 x 8 pixels: neighbours, then pairs, then fours
/// change places (Warren, Hacker's Delight, Sec. 7-3), eight at a time in a word.
[[gnu::always_inline]] inline void transpose_8x8(const uint8_t* in, int64_t in_stride, uint8_t* out,
                                                 int64_t out_stride) {
  uint64_t rows[8];
  for (int y = 0; y < 8; ++y) std::memcpy(&rows[y], in + y * in_stride, 8);
  const auto exchange = [&rows](int y, int apart, int bits, uint64_t low) __attribute__((always_inline)) {
    const uint64_t moved = ((rows[y] >> bits) ^ rows[y + apart]) & low;
    rows[y + apart] ^= moved;
    rows[y] ^= moved << bits;
  };
  for (int y = 0; y < 8; y += 2) exchange(y, 1, 8, 0x00ff00ff00ff00ff);
  for (const int y : {0, 1, 4, 5}) exchange(y, 2, 16, 0x0000ffff0000ffff);
  for (int y = 0; y < 4; ++y) exchange(y, 4, 32, 0x00000000ffffffff);
  for (int x = 0; x < 8; ++x) std::memcpy(out + x * out_stride, &rows[x], 8);
}

/// in [rows, in_stride] -> out [columns, out_stride]
[[gnu::always_inline]] inline void transpose(const uint8_t* in, int64_t in_stride, int64_t rows, int64_t columns,
                                             uint8_t* out, int64_t out_stride) {
  // The words above are read from the low byte up.
  constexpr bool kWords = std::endian::native == std::endian::little;
  const int64_t whole_rows = kWords ? rows / 8 * 8 : 0;
  const int64_t whole_columns = kWords ? columns / 8 * 8 : 0;
  for (int64_t y = 0; y < whole_rows; y += 8) {
    for (int64_t x = 0; x < whole_columns; x += 8) {
      transpose_8x8(in + y * in_stride + x, in_stride, out + x * out_stride + y, out_stride);
    }
  }
  for (int64_t y = 0; y < rows; ++y) {
    for (int64_t x = y < whole_rows ? whole_columns : 0; x < columns; ++x) {
      out[x * out_stride + y] = in[y * in_stride + x];
    }
  }
}

/// in [rows, in_stride], whose pixel 0 is the image's column taps.first_read() -> out [rows, taps.size()].
/// tile: at least kRun * (taps.end_read() - taps.first_read()) bytes.
[[gnu::always_inline]] inline void along_x(const uint8_t* in, int64_t in_stride, uint8_t* out, int64_t rows,
                                           const ResizeTaps& taps, uint8_t* tile) {
  constexpr int64_t kColumns = 8;  // of results that go back into rows together
  const int64_t first = taps.first_read();
  const int64_t columns = taps.end_read() - first;
  for (int64_t top = 0; top < rows; top += kRun) {
    // kRun rows turned into columns: then pixels that share their weights are neighbours.
    const int64_t some = std::min<int64_t>(kRun, rows - top);
    if (some < kRun) std::fill_n(tile, columns * kRun, uint8_t{0});
    transpose(in + top * in_stride, in_stride, some, columns, tile, kRun);
    for (int64_t left = 0; left < taps.size(); left += kColumns) {
      uint8_t results[kColumns * kRun];
      const int64_t few = std::min(kColumns, taps.size() - left);
      for (int64_t x = 0; x < few; ++x) {
        const ResizeTaps::Span span = taps.span(left + x);
        weigh<kRun>(tile + (span.first - first) * kRun, kRun, results + x * kRun, taps.weights(left + x), span.count);
      }
      transpose(results, kRun, few, some, out + top * taps.size() + left, taps.size());
    }
  }
}

/// in [., in_stride], whose row 0 is the image's row taps.first_read() -> out [taps.size(), width].
[[gnu::always_inline]] inline void along_y(const uint8_t* in, int64_t in_stride, uint8_t* out, int64_t width,
                                           const ResizeTaps& taps) {
  for (int64_t y = 0; y < taps.size(); ++y) {
    const ResizeTaps::Span span = taps.span(y);
    const uint8_t* from = in + (span.first - taps.first_read()) * in_stride;
    uint8_t* to = out + y * width;
    int64_t x = 0;
    for (; x + kRun <= width; x += kRun) weigh<kRun>(from + x, in_stride, to + x, taps.weights(y), span.count);
    for (; x + 8 <= width; x += 8) weigh<8>(from + x, in_stride, to + x, taps.weights(y), span.count);
    for (; x < width; ++x) weigh<1>(from + x, in_stride, to + x, taps.weights(y), span.count);
  }
}

struct Passes {
  void (*along_x)(const uint8_t*, int64_t, uint8_t*, int64_t, const ResizeTaps&, uint8_t*);
  void (*along_y)(const uint8_t*, int64_t, uint8_t*, int64_t, const ResizeTaps&);
};

void along_x_anywhere(const uint8_t* in, int64_t in_stride, uint8_t* out, int64_t rows, const ResizeTaps& taps,
                      uint8_t* tile) {
  along_x(in, in_stride, out, rows, taps, tile);
}
void along_y_anywhere(const uint8_t* in, int64_t in_stride, uint8_t* out, int64_t width, const ResizeTaps& taps) {
  along_y(in, in_stride, out, width, taps);
}
#if defined(__x86_64__)
[[gnu::target("avx2")]] void along_x_avx2(const uint8_t* in, int64_t in_stride, uint8_t* out, int64_t rows,
                                          const ResizeTaps& taps, uint8_t* tile) {
  along_x(in, in_stride, out, rows, taps, tile);
}
[[gnu::target("avx2")]] void along_y_avx2(const uint8_t* in, int64_t in_stride, uint8_t* out, int64_t width,
                                          const ResizeTaps& taps) {
  along_y(in, in_stride, out, width, taps);
}
#endif

Passes passes_of_this_machine() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) return {.along_x = along_x_avx2, .along_y = along_y_avx2};
#endif
  return {.along_x = along_x_anywhere, .along_y = along_y_anywhere};
}

}  // namespace

const char* name_of(Interpolation interpolation) { return filter_of(interpolation).name; }

std::string interpolation_names() {
  std::string names;
  for (const Filter& filter : kFilters) names += std::string(names.empty() ? "" : ", ") + filter.name;
  return names;
}

Interpolation parse_interpolation(const std::string& name) {
  for (size_t i = 0; i < kFilters.size(); ++i) {
    if (name == kFilters[i].name) return static_cast<Interpolation>(i);
  }
  throw UserError("interpolation: found '{}'; expected one of {}", escape_control(name), interpolation_names());
}

ResizeTaps::ResizeTaps(int64_t in, int64_t out, Interpolation interpolation, int64_t begin, int64_t size)
    : in_(in), is_identity_(in == out) {
  check(in >= 1 && in <= kMaxImageSide && out >= 1 && out <= kMaxResizedSide, "ResizeTaps: a size is out of range");
  check(size >= 1 && size <= kMaxImageSide && begin >= 0 && begin <= out - size, "ResizeTaps: a part outside");
  spans_.resize(static_cast<size_t>(size));
  // A side that stays is not filtered, as in Pillow.
  if (is_identity_ || interpolation == Interpolation::nearest) {
    take_single_pixels(out, is_identity_, begin);
  } else {
    make_weights(out, interpolation, begin);
  }
}

void ResizeTaps::take_single_pixels(int64_t out, bool identity, int64_t begin) {
  weights_.assign(spans_.size(), kOne);
  if (identity) {
    for (size_t i = 0; i < spans_.size(); ++i) spans_[i] = {static_cast<int32_t>(begin + static_cast<int64_t>(i)), 1};
    return;
  }
  // Pillow's ImagingScaleAffine: the place is a running sum, with its rounding.
  const double scale = static_cast<double>(in_) / static_cast<double>(out);
  double place = scale * 0.5;
  for (int64_t i = 0; i < begin; ++i) place += scale;
  for (Span& span : spans_) {
    span = {static_cast<int32_t>(place), 1};
    check(span.first < in_, "ResizeTaps: the running sum left the image");
    place += scale;
  }
}

void ResizeTaps::make_weights(int64_t out, Interpolation interpolation, int64_t begin) {
  const Filter& filter = filter_of(interpolation);
  const double scale = static_cast<double>(in_) / static_cast<double>(out);
  const double widening = std::max(scale, 1.0);  // antialias: when shrinking, the filter covers what falls together
  const double support = filter.support * widening;
  const double inverse_widening = 1.0 / widening;
  stride_ = std::min(in_, static_cast<int64_t>(std::ceil(support)) * 2 + 1);
  weights_.resize(spans_.size() * static_cast<size_t>(stride_));
  std::vector<double> exact(static_cast<size_t>(stride_));
  for (size_t i = 0; i < spans_.size(); ++i) {
    // The order of these operations is Pillow's: another would round differently.
    const double center = (static_cast<double>(begin + static_cast<int64_t>(i)) + 0.5) * scale;
    const int64_t first = std::max<int64_t>(0, static_cast<int64_t>(center - support + 0.5));
    const int64_t last = std::min<int64_t>(in_, static_cast<int64_t>(center + support + 0.5));
    check(first < last, "ResizeTaps: a pixel that reads none");
    const auto count = static_cast<size_t>(last - first);
    double total = 0.0;
    for (size_t k = 0; k < count; ++k) {
      exact[k] =
          filter.weight((static_cast<double>(static_cast<int64_t>(k) + first) - center + 0.5) * inverse_widening);
      total += exact[k];
    }
    int32_t* weights = weights_.data() + i * static_cast<size_t>(stride_);
    for (size_t k = 0; k < count; ++k) {
      const double share = (total != 0.0 ? exact[k] / total : exact[k]) * kOne;
      weights[k] = static_cast<int32_t>(share < 0 ? share - 0.5 : share + 0.5);
    }
    spans_[i] = {static_cast<int32_t>(first), static_cast<int32_t>(count)};
  }
}

namespace {

int64_t checked_side(int64_t side, int64_t most) {
  if (side < 1 || side > most) {
    throw UserError("resize: found an image side of {} pixels; expected 1 to {}", side, most);
  }
  return side;
}

ResizeTaps checked_taps(int64_t in, int64_t out, Interpolation interpolation, int64_t begin, int64_t size) {
  checked_side(in, kMaxImageSide);
  checked_side(out, kMaxResizedSide);
  checked_side(size, kMaxImageSide);
  if (begin < 0 || begin > out - size) {
    throw UserError("resize: found a window at pixel {} of {} pixels; expected it inside the resized {}", begin, size,
                    out);
  }
  return {in, out, interpolation, begin, size};
}

}  // namespace

Resizer::Resizer(int64_t in_height, int64_t in_width, int64_t out_height, int64_t out_width,
                 Interpolation interpolation)
    : Resizer(in_height, in_width, out_height, out_width, interpolation, {.height = out_height, .width = out_width}) {}

Resizer::Resizer(int64_t in_height, int64_t in_width, int64_t out_height, int64_t out_width,
                 Interpolation interpolation, const Window& window)
    : columns_(checked_taps(in_width, out_width, interpolation, window.left, window.width)),
      rows_(checked_taps(in_height, out_height, interpolation, window.top, window.height)) {}

void Resizer::resize(std::span<const uint8_t> in, std::span<uint8_t> out, std::vector<uint8_t>& scratch) const {
  check(static_cast<int64_t>(in.size()) == in_pixels(), "Resizer: the input is not of the input's size");
  check(static_cast<int64_t>(out.size()) == out_pixels(), "Resizer: the output is not of the output's size");
  static const Passes kPasses = passes_of_this_machine();
  const int64_t in_width = columns_.in();
  const int64_t width = columns_.size();
  // Of the input, what the window reads.
  const uint8_t* from = in.data() + rows_.first_read() * in_width + columns_.first_read();
  const int64_t rows = rows_.end_read() - rows_.first_read();
  if (columns_.is_identity() && rows_.is_identity()) {
    for (int64_t y = 0; y < rows; ++y) std::copy_n(from + y * in_width, width, out.data() + y * width);
    return;
  }
  if (columns_.is_identity()) {
    kPasses.along_y(from, in_width, out.data(), width, rows_);
    return;
  }
  const auto tile_bytes = static_cast<size_t>((columns_.end_read() - columns_.first_read()) * kRun);
  if (rows_.is_identity()) {
    scratch.resize(tile_bytes);
    kPasses.along_x(from, in_width, out.data(), rows, columns_, scratch.data());
    return;
  }
  scratch.resize(tile_bytes + static_cast<size_t>(rows * width));
  uint8_t* between = scratch.data() + tile_bytes;
  kPasses.along_x(from, in_width, between, rows, columns_, scratch.data());
  kPasses.along_y(between, width, out.data(), width, rows_);
}

}  // namespace resnet
