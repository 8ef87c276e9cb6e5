#include "data/decode.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string_view>

#include "base/checked_math.h"
#include "base/error.h"
#include "data/exif.h"
#include "data/file_bytes.h"
#include "data/image_readers.h"

namespace resnet {

namespace {

// The largest image allowed as an uncompressed PNG of four 16-bit channels, and some.
constexpr size_t kMaxFileBytes = size_t{1536} << 20;

bool begins(std::span<const std::byte> file, std::string_view text, size_t at = 0) {
  return file.size() >= at + text.size() && std::memcmp(file.data() + at, text.data(), text.size()) == 0;
}

std::optional<ImageFormat> format_of(std::span<const std::byte> file) {
  if (begins(file, "\xff\xd8\xff")) return ImageFormat::jpeg;
  if (begins(file, "\x89PNG\r\n\x1a\n")) return ImageFormat::png;
  if (begins(file, "RIFF") && begins(file, "WEBP", 8)) return ImageFormat::webp;
  return std::nullopt;
}

ImageFormat require_format(std::span<const std::byte> file, const std::string& name) {
  if (const auto format = format_of(file)) return *format;
  throw bad_data(name, 0, "format", "found {}; expected a JPEG, PNG or WebP image", describe_content(file));
}

ImageInfo probe(std::span<const std::byte> file, const std::string& name) {
  switch (require_format(file, name)) {
    case ImageFormat::jpeg: return probe_jpeg(file, name);
    case ImageFormat::png: return probe_png(file, name);
    case ImageFormat::webp: return probe_webp(file, name);
  }
  throw InternalError("decode: a format without a reader");
}

Image decode_as_stored(std::span<const std::byte> file, const std::string& name, const ImageInfo& info,
                       const DecodeOptions& options) {
  switch (info.format) {
    case ImageFormat::jpeg: return decode_jpeg(file, name, info, options);
    case ImageFormat::png: return decode_png(file, name, info, options);
    case ImageFormat::webp: return decode_webp(file, name, info, options);
  }
  throw InternalError("decode: a format without a reader");
}

}  // namespace

void refuse_bomb(const ImageInfo& info, uint64_t bytes, const std::string& name) {
  constexpr uint64_t kFreePixels = uint64_t{1} << 22, kPixelsPerByte = 8192;
  const uint64_t pixels = static_cast<uint64_t>(info.width) * static_cast<uint64_t>(info.height);
  if (pixels <= kFreePixels || pixels / kPixelsPerByte <= bytes) return;
  throw UserError(ExitCode::limit, "{}: has {} x {} pixels in {} bytes of data; at most {} pixels a byte are read",
                  name, info.width, info.height, bytes, kPixelsPerByte);
}

const char* name_of(ImageFormat format) {
  switch (format) {
    case ImageFormat::jpeg: return "JPEG";
    case ImageFormat::png: return "PNG";
    case ImageFormat::webp: return "WebP";
  }
  throw InternalError("decode: a format without a name");
}

std::string describe_content(std::span<const std::byte> file) {
  if (file.empty()) return "an empty file";
  if (begins(file, "GIF8")) return "a GIF";
  if (begins(file, "BM")) return "a BMP";
  if (begins(file, std::string_view("II*\0", 4)) || begins(file, std::string_view("MM\0*", 4))) return "a TIFF";
  if (begins(file, "ftypavif", 4)) return "an AVIF";
  if (begins(file, "ftyphei", 4) || begins(file, "ftypmif1", 4)) return "a HEIC";
  if (begins(file, "%PDF")) return "a PDF";
  if (begins(file, "<svg") || begins(file, "<?xml")) return "XML (SVG?)";
  if (begins(file, "<!DOCTYPE html") || begins(file, "<html")) return "an HTML page";
  if (begins(file, "PK\x03\x04")) return "a zip archive";
  std::string bytes;
  for (const std::byte b : file.first(std::min<size_t>(file.size(), 4))) {
    bytes += fmt::format("{}{:02x}", bytes.empty() ? "0x" : " 0x", std::to_integer<int>(b));
  }
  return "bytes " + bytes;
}

bool looks_like_image(std::span<const std::byte> file) { return format_of(file).has_value(); }

ImageInfo probe_image(std::span<const std::byte> file, const std::string& name) {
  return probe(file, escape_control(name));
}

Image decode_image(std::span<const std::byte> file, const std::string& name, const DecodeOptions& options) {
  check(options.channels == 1 || options.channels == 3, "decode_image: channels are neither 1 nor 3");
  const std::string shown = escape_control(name);
  const ImageInfo info = probe(file, shown);
  const auto pixels = checked_multiply({static_cast<uint64_t>(info.width), static_cast<uint64_t>(info.height)});
  if (!pixels || *pixels > options.max_pixels) {
    throw UserError(ExitCode::limit, "{}: has {} x {} pixels; at most {} in all are read", shown, info.width,
                    info.height, options.max_pixels);
  }
  // One row must not be a memory bomb of its own.
  constexpr int64_t kMaxSide = 65535;
  if (std::max(info.width, info.height) > kMaxSide) {
    throw UserError(ExitCode::limit, "{}: has {} x {} pixels; at most {} a side are read", shown, info.width,
                    info.height, kMaxSide);
  }
  Image image = decode_as_stored(file, shown, info, options);
  return options.exif_orientation ? upright(std::move(image), info.orientation) : image;
}

void read_image_bytes(const std::string& path, std::vector<std::byte>& out) {
  read_file_bytes(path, kMaxFileBytes, out,
                  [&](std::span<const std::byte> start) { require_format(start, escape_control(path)); });
}

Image read_image(const std::string& path, const DecodeOptions& options) {
  std::vector<std::byte> bytes;
  read_image_bytes(path, bytes);
  return decode_image(bytes, path, options);
}

}  // namespace resnet
