#pragma once
// Resampling of 8-bit images, equal to Pillow's byte for byte (Image.resize of modes L and RGB; source:
// Pillow's src/libImaging/Resample.c): a triangle, or another filter, widened by the scale when shrinking, with
// weights of 22 fractional bits; rows first, then columns, rounded to 8 bits after each.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace resnet {

enum class Interpolation : uint8_t { bilinear };

/// "bilinear": the spelling of flags, configurations and model files.
const char* name_of(Interpolation interpolation);
/// Throws UserError with the accepted names.
Interpolation parse_interpolation(const std::string& name);

/// Sides above this are refused, which also keeps every index of a pass in 32 bits.
inline constexpr int64_t kMaxImageSide = 65535;

/// The weights of one pass, from `in` to `out` pixels: out[i] = sum of weight[k] * in[first + k].
class ResizeTaps {
 public:
  struct Span {
    int32_t first = 0;
    int32_t count = 0;
  };

  /// in, out: 1..kMaxImageSide, otherwise throws InternalError.
  ResizeTaps(int64_t in, int64_t out, Interpolation interpolation);

  int64_t in() const { return in_; }
  int64_t out() const { return static_cast<int64_t>(spans_.size()); }
  Span span(int64_t i) const { return spans_[static_cast<size_t>(i)]; }
  /// span(i).count fixed-point weights.
  const int32_t* weights(int64_t i) const { return weights_.data() + i * stride_; }

 private:
  int64_t in_;
  int64_t stride_;
  std::vector<Span> spans_;
  std::vector<int32_t> weights_;
};

/// A resize from one size to another, with its tables made once. Constant after construction, so threads may share it
/// when each brings its own scratch.
class Resizer {
 public:
  /// Throws UserError when a side is outside 1..kMaxImageSide.
  Resizer(int64_t in_height, int64_t in_width, int64_t out_height, int64_t out_width,
          Interpolation interpolation = Interpolation::bilinear);

  int64_t in_pixels() const { return rows_.in() * columns_.in(); }
  int64_t out_pixels() const { return rows_.out() * columns_.out(); }

  /// One channel: in [in_height, in_width] -> out [out_height, out_width]. A channel of an RGB image is resized alone,
  /// as Pillow does. `scratch` is working memory that grows as needed.
  void resize(std::span<const uint8_t> in, std::span<uint8_t> out, std::vector<uint8_t>& scratch) const;

 private:
  ResizeTaps columns_;  // along x
  ResizeTaps rows_;     // along y
};

}  // namespace resnet
