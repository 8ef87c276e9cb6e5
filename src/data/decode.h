#pragma once
// Image files to pixels: JPEG, PNG and WebP, equal to Pillow 9.4's Image.open(file).convert("L" or "RGB") byte for byte
// wherever Pillow reads the file. The content decides the type, never the name. Content is hostile: before memory is
// taken, what a header claims is checked against limits and against the file's size. A JPEG block takes a bit and
// deflate shrinks to 1/1032 at most; WebP and arithmetic-coded JPEG have no such bound, so a ratio of pixels to bytes
// that no picture has is refused there.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/image.h"

namespace resnet {

enum class ImageFormat : uint8_t { jpeg, png, webp };

/// "JPEG", "PNG" or "WebP".
const char* name_of(ImageFormat format);

/// What a file says of itself before any pixel is decoded.
struct ImageInfo {
  ImageFormat format = ImageFormat::jpeg;
  int64_t width = 0;   ///< as stored: before the EXIF orientation
  int64_t height = 0;  ///< likewise
  /// Pillow's name of what the file holds: "1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16" (a grey PNG of 16 bits,
  /// which convert() clips at 255).
  std::string mode;
  int orientation = 1;  ///< EXIF's, 1..8; 1 where the file has none
};

struct DecodeOptions {
  int64_t channels = 3;               ///< 1: as Pillow's convert("L"); 3: as convert("RGB")
  bool exif_orientation = false;      ///< turned upright, as PIL.ImageOps.exif_transpose does
  uint64_t max_pixels = 178'956'970;  ///< beyond it Pillow raises DecompressionBombError
  /// Where given: gets a line for each kind of damage that Pillow and this decoder read over (a wrong checksum of pixel
  /// data, garbage between markers); the pixels are then Pillow's, but perhaps not what was photographed.
  std::vector<std::string>* damage = nullptr;
};

/// What decode_image says when a file's first bytes are those of no image format it reads: "a GIF", "an empty file".
std::string describe_content(std::span<const std::byte> file);

/// Whether the first bytes are those of a JPEG, a PNG or a WebP file.
bool looks_like_image(std::span<const std::byte> file);

/// Reads the headers only. `name` stands in messages, escaped here.
/// Throws UserError bad_data (no image, or a header that cannot be) with the byte and the field.
ImageInfo probe_image(std::span<const std::byte> file, const std::string& name);

/// -> u8 [options.channels, height, width].
/// Throws UserError bad_data (no image; damaged or truncated, where Pillow raises too), UserError limit (more than
/// max_pixels, a side above 65535, more scans than a photo has), ResourceError limit (out of memory).
Image decode_image(std::span<const std::byte> file, const std::string& name, const DecodeOptions& options = {});

/// The bytes of an image file into `out`, whose memory is used again. Throws what read_file_bytes() throws, and
/// decode_image()'s UserError bad_data as soon as the first bytes are those of no image, whatever size the file has.
void read_image_bytes(const std::string& path, std::vector<std::byte>& out);

/// Reads the file, then decode_image. Also throws ResourceError io (missing, unreadable, not a regular file).
Image read_image(const std::string& path, const DecodeOptions& options = {});

}  // namespace resnet
