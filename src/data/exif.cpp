#include "data/exif.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <utility>

namespace resnet {

namespace {

/// Numbers of a TIFF block in the byte order its header names. Reading past the end gives nothing.
class Tiff {
 public:
  explicit Tiff(std::span<const std::byte> bytes) : bytes_(bytes) {}

  bool has_header() {
    if (bytes_.size() < 8) return false;
    const auto mark = [&](const char* text) { return std::memcmp(bytes_.data(), text, 2) == 0; };
    if (!mark("II") && !mark("MM")) return false;
    little_ = mark("II");
    // Some writers store 42 in the wrong order; Pillow takes either.
    return u16(2) == 42 || u16(2) == 42 << 8;
  }

  std::optional<uint32_t> u16(uint64_t at) const { return number(at, 2); }
  std::optional<uint32_t> u32(uint64_t at) const { return number(at, 4); }
  std::optional<uint32_t> u8(uint64_t at) const { return number(at, 1); }

 private:
  std::optional<uint32_t> number(uint64_t at, uint64_t size) const {
    if (at > bytes_.size() || size > bytes_.size() - at) return std::nullopt;
    uint32_t value = 0;
    for (uint64_t i = 0; i < size; ++i) {
      value = value << 8 | std::to_integer<uint32_t>(bytes_[at + (little_ ? size - 1 - i : i)]);
    }
    return value;
  }

  std::span<const std::byte> bytes_;
  bool little_ = true;
};

}  // namespace

int exif_orientation(std::span<const std::byte> exif) {
  constexpr char kPrefix[] = {'E', 'x', 'i', 'f', 0, 0};
  if (exif.size() >= sizeof kPrefix && std::memcmp(exif.data(), kPrefix, sizeof kPrefix) == 0) {
    exif = exif.subspan(sizeof kPrefix);
  }
  Tiff tiff(exif);
  if (!tiff.has_header()) return 1;
  const uint64_t directory = *tiff.u32(4);
  const uint32_t entries = tiff.u16(directory).value_or(0);
  int orientation = 1;
  constexpr uint32_t kOrientation = 0x0112;
  constexpr uint32_t kByte = 1, kShort = 3, kLong = 4;
  for (uint64_t i = 0; i < entries; ++i) {
    const uint64_t entry = directory + 2 + 12 * i;
    const std::optional<uint32_t> tag = tiff.u16(entry);
    const std::optional<uint32_t> long_value = tiff.u32(entry + 8);
    if (!tag || !long_value) break;
    if (*tag != kOrientation || *tiff.u32(entry + 4) != 1) continue;
    const uint32_t type = *tiff.u16(entry + 2);
    if (type != kByte && type != kShort && type != kLong) continue;
    const uint32_t value = type == kByte ? *tiff.u8(entry + 8) : type == kShort ? *tiff.u16(entry + 8) : *long_value;
    orientation = value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return orientation;
}

Image upright(Image image, int orientation) {
  if (orientation <= 1 || orientation > 8) return image;
  // Output (y, x) is input (y, x) with, in this order, the axes exchanged (5..8), rows and columns reversed.
  const bool transposed = orientation >= 5;
  const bool reverse_rows = orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8;
  const bool reverse_columns = orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7;
  Image out{.pixels = std::vector<uint8_t>(image.pixels.size()),
            .channels = image.channels,
            .height = transposed ? image.width : image.height,
            .width = transposed ? image.height : image.width};
  const int64_t step_y = transposed ? 1 : image.width;
  const int64_t step_x = transposed ? image.width : 1;
  for (int64_t c = 0; c < out.channels; ++c) {
    const uint8_t* in = image.pixels.data() + c * image.height * image.width;
    uint8_t* to = out.pixels.data() + c * image.height * image.width;
    for (int64_t y = 0; y < out.height; ++y) {
      const uint8_t* row = in + (reverse_rows ? out.height - 1 - y : y) * step_y;
      for (int64_t x = 0; x < out.width; ++x) *to++ = row[(reverse_columns ? out.width - 1 - x : x) * step_x];
    }
  }
  return out;
}

}  // namespace resnet
