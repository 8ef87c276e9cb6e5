#pragma once
// Resampling of 8-bit images, equal to Pillow's byte for byte (Image.resize of modes L and RGB; source: Pillow's
// src/libImaging/Resample.c, and for nearest Geometry.c): a filter widened by the scale when shrinking, with weights of
// 22 fractional bits; rows first, then columns, rounded to 8 bits after each.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace resnet {

/// Pillow's filters. nearest takes the pixel under the centre and is no filter: shrinking with it drops pixels.
enum class Interpolation : uint8_t { nearest, box, bilinear, hamming, bicubic, lanczos };

/// "bilinear": the spelling of flags, configurations and model files, which is timm's too.
const char* name_of(Interpolation interpolation);
/// Throws UserError with the accepted names.
Interpolation parse_interpolation(const std::string& name);
/// "nearest, box, ...": for messages and help.
std::string interpolation_names();

/// Sides above this are refused, which also keeps every index of a pass in 32 bits.
inline constexpr int64_t kMaxImageSide = 65535;
/// The side of a resized image of which only a window is made may be larger: what a panorama's long side becomes.
inline constexpr int64_t kMaxResizedSide = int64_t{1} << 30;

/// The weights of one pass, from `in` to `out` pixels: out[i] = sum of weight[k] * in[first + k]. Held for the pixels
/// begin .. begin+size-1 of `out` alone, and numbered from 0.
class ResizeTaps {
 public:
  struct Span {
    int32_t first = 0;
    int32_t count = 0;
  };

  /// in: 1..kMaxImageSide, out: 1..kMaxResizedSide, size: 1..kMaxImageSide pixels inside out; otherwise throws
  /// InternalError.
  ResizeTaps(int64_t in, int64_t out, Interpolation interpolation, int64_t begin, int64_t size);

  int64_t in() const { return in_; }
  int64_t size() const { return static_cast<int64_t>(spans_.size()); }
  /// Whether out == in: then every pixel stays as it is.
  bool is_identity() const { return is_identity_; }
  /// Pixels of `in` from the first to behind the last that any pixel of the result reads.
  int64_t first_read() const { return spans_.front().first; }
  int64_t end_read() const { return spans_.back().first + spans_.back().count; }
  Span span(int64_t i) const { return spans_[static_cast<size_t>(i)]; }
  /// span(i).count fixed-point weights.
  const int32_t* weights(int64_t i) const { return weights_.data() + i * stride_; }

 private:
  void take_single_pixels(int64_t out, bool identity, int64_t begin);
  void make_weights(int64_t out, Interpolation interpolation, int64_t begin);

  int64_t in_;
  bool is_identity_;
  int64_t stride_ = 1;
  std::vector<Span> spans_;
  std::vector<int32_t> weights_;
};

/// A part of an image, in pixels of the image.
struct Window {
  int64_t top = 0, left = 0, height = 0, width = 0;
};

/// A resize from one size to another, with its tables made once. Constant after construction, so threads may share it
/// when each brings its own scratch.
class Resizer {
 public:
  /// Throws UserError when a side is outside 1..kMaxImageSide.
  Resizer(int64_t in_height, int64_t in_width, int64_t out_height, int64_t out_width,
          Interpolation interpolation = Interpolation::bilinear);
  /// Makes only `window` of the resized image, the same bytes as a resize and a crop but no more work and memory than
  /// the window needs. Throws UserError when a side of the input is outside 1..kMaxImageSide, of the output outside
  /// 1..kMaxResizedSide, or the window is empty, larger than kMaxImageSide or not inside the output.
  Resizer(int64_t in_height, int64_t in_width, int64_t out_height, int64_t out_width, Interpolation interpolation,
          const Window& window);

  int64_t in_pixels() const { return rows_.in() * columns_.in(); }
  int64_t out_height() const { return rows_.size(); }
  int64_t out_width() const { return columns_.size(); }
  int64_t out_pixels() const { return rows_.size() * columns_.size(); }

  /// One channel: in [in_height, in_width] -> out [out_height, out_width], the window. A channel of an RGB image is
  /// resized alone, as Pillow does. `scratch` is working memory that grows as needed.
  void resize(std::span<const uint8_t> in, std::span<uint8_t> out, std::vector<uint8_t>& scratch) const;

 private:
  ResizeTaps columns_;  // along x
  ResizeTaps rows_;     // along y
};

}  // namespace resnet
