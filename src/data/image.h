#pragma once
// Pixels of one image: what decoders give and preprocess() takes.

#include <cstdint>
#include <span>
#include <vector>

namespace resnet {

/// Pixels of one image, channel by channel: u8 [channels, height, width]. Borrowed.
struct ImageView {
  std::span<const uint8_t> pixels;
  int64_t channels = 1;
  int64_t height = 0;
  int64_t width = 0;
};

/// The same, owned.
struct Image {
  std::vector<uint8_t> pixels;
  int64_t channels = 1;
  int64_t height = 0;
  int64_t width = 0;

  ImageView view() const { return {.pixels = pixels, .channels = channels, .height = height, .width = width}; }
};

}  // namespace resnet
