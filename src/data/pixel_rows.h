#pragma once
// Rows of interleaved pixels, as decoders produce them, to an Image: channel by channel, grey or RGB.

#include <cstdint>
#include <memory>
#include <string>

#include "data/image.h"

namespace resnet {

/// Pillow's weights of convert("L") for one pixel (ITU-R 601-2, in 16 fractional bits, rounded).
inline uint8_t luma(uint8_t r, uint8_t g, uint8_t b) {
  return static_cast<uint8_t>((r * 19595u + g * 38470u + b * 7471u + 0x8000u) >> 16);
}

/// Collects the rows of one image. Memory is touched only where rows really came, so that a header that claims a large
/// image before a short file costs little.
class PixelRows {
 public:
  /// channels: 1 or 3, of the result. Throws ResourceError limit, naming `name`, when there is no memory for it.
  PixelRows(const std::string& name, int64_t channels, int64_t height, int64_t width);
  ~PixelRows();
  PixelRows(const PixelRows&) = delete;
  PixelRows& operator=(const PixelRows&) = delete;

  /// Row y from `width` grey values.
  void put_grey(int64_t y, const uint8_t* row) noexcept;
  /// Row y from `width` pixels of `step` bytes that begin with red, green, blue.
  void put_rgb(int64_t y, const uint8_t* row, int64_t step = 3) noexcept;

  /// The image, once every row was put.
  Image take();

 private:
  uint8_t* plane_row(int64_t channel, int64_t y) const noexcept;

  std::string name_;
  Image image_;              // of small images the pixels, of large ones only the sizes
  uint8_t* data_ = nullptr;  // where rows are put
  size_t mapped_bytes_ = 0;  // of large images: fresh pages of their own
};

}  // namespace resnet
