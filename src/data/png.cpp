// PNG through libspng. Our own walk over the chunks decides what libspng gets to see: header, palette and pixel data.
// So no text, profile or other extra is ever inflated, and checksums are treated as Pillow treats them.

#include <spng.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>

#include "base/checked_math.h"
#include "base/error.h"
#include "data/exif.h"
#include "data/image_readers.h"
#include "data/pixel_rows.h"

namespace resnet {

namespace {

// Deflate cannot expand more: a match of 258 bytes costs at least two bits (zlib's "Technical Details").
constexpr uint64_t kMaxDeflateRatio = 1032;
constexpr size_t kSignatureBytes = 8, kHeaderBytes = 13;

uint32_t big_endian(std::span<const std::byte> bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value = value << 8 | std::to_integer<uint32_t>(bytes[at + i]);
  return value;
}

struct Header {
  int64_t width = 0, height = 0;
  int bit_depth = 0, colour_type = 0;
  bool interlaced = false;

  int samples() const {
    switch (colour_type) {
      case SPNG_COLOR_TYPE_TRUECOLOR: return 3;
      case SPNG_COLOR_TYPE_GRAYSCALE_ALPHA: return 2;
      case SPNG_COLOR_TYPE_TRUECOLOR_ALPHA: return 4;
      default: return 1;
    }
  }
};

/// What a PNG file consists of.
struct Layout {
  Header header;
  std::span<const std::byte> header_chunk;             ///< IHDR with its length and checksum
  std::span<const std::byte> palette_chunk;            ///< PLTE likewise, complete, or empty
  std::vector<std::span<const std::byte>> pixel_data;  ///< the bodies of the IDAT chunks, the last perhaps cut short
  uint64_t pixel_bytes = 0;                            ///< in all of them
  uint64_t pixel_offset = 0;                           ///< of the first one
  uLong pixel_checksum = 0;                            ///< CRC-32 of them all as one chunk
  int orientation = 1;
  std::vector<std::string> damage;
};

struct Chunk {
  size_t at = 0;
  std::string type;
  std::span<const std::byte> body;   ///< cut short where the file ends
  std::span<const std::byte> whole;  ///< with length, type and checksum
  bool complete = false;             ///< the checksum is there
};

/// The chunk at `at`; nothing where fewer than eight bytes are left.
std::optional<Chunk> chunk_at(std::span<const std::byte> file, size_t at) {
  constexpr size_t kFrame = 8, kChecksum = 4;
  if (file.size() < at + kFrame) return std::nullopt;
  const uint64_t length = big_endian(file, at);
  const uint64_t left = file.size() - at - kFrame;
  Chunk chunk{.at = at,
              .type = std::string(reinterpret_cast<const char*>(file.data()) + at + 4, 4),
              .body = file.subspan(at + kFrame, std::min(length, left)),
              .complete = length <= left && left - length >= kChecksum};
  chunk.whole = file.subspan(at, kFrame + chunk.body.size() + (chunk.complete ? kChecksum : 0));
  return chunk;
}

uLong checksum(std::span<const std::byte> bytes) {
  return crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size());
}

/// PNG's checksum of a chunk from those of its type and its body.
bool checksum_fits(const Chunk& chunk, uLong body_checksum) {
  const uLong sum =
      crc32_combine(checksum(chunk.whole.subspan(4, 4)), body_checksum, static_cast<z_off_t>(chunk.body.size()));
  return chunk.complete && sum == big_endian(chunk.whole, 8 + chunk.body.size());
}

Header parse_header(const Chunk& chunk, const std::string& name) {
  if (chunk.type != "IHDR" || chunk.body.size() != kHeaderBytes) {
    throw bad_data(name, chunk.at, "IHDR", "found a chunk '{}' of {} bytes; expected 'IHDR' of {}",
                   escape_control(chunk.type), chunk.body.size(), kHeaderBytes);
  }
  const auto byte = [&](size_t at) { return std::to_integer<int>(chunk.body[at]); };
  const Header header{.width = big_endian(chunk.body, 0),
                      .height = big_endian(chunk.body, 4),
                      .bit_depth = byte(8),
                      .colour_type = byte(9),
                      .interlaced = byte(12) != 0};
  const size_t field = chunk.at + 8;
  constexpr int64_t kMaxSide = 0x7fffffff;
  if (header.width < 1 || header.height < 1 || header.width > kMaxSide || header.height > kMaxSide) {
    throw bad_data(name, field, "size", "found {} x {} pixels; expected 1 to {} a side", header.width, header.height,
                   kMaxSide);
  }
  const int depth = header.bit_depth;
  const bool whole_bytes = depth == 8 || depth == 16;
  const bool narrow = depth == 1 || depth == 2 || depth == 4;
  bool fine = false;
  switch (header.colour_type) {
    case SPNG_COLOR_TYPE_GRAYSCALE: fine = whole_bytes || narrow; break;
    case SPNG_COLOR_TYPE_INDEXED: fine = depth == 8 || narrow; break;
    case SPNG_COLOR_TYPE_TRUECOLOR:
    case SPNG_COLOR_TYPE_GRAYSCALE_ALPHA:
    case SPNG_COLOR_TYPE_TRUECOLOR_ALPHA: fine = whole_bytes; break;
    default: break;
  }
  if (!fine) {
    throw bad_data(name, field + 8, "colour type", "found {} with {} bits; expected a pair that PNG knows",
                   header.colour_type, depth);
  }
  if (byte(10) != 0 || byte(11) != 0 || byte(12) > 1) {
    throw bad_data(name, field + 10, "methods", "found compression {}, filter {}, interlace {}; expected 0, 0, 0 or 1",
                   byte(10), byte(11), byte(12));
  }
  return header;
}

bool is_chunk_type(const std::string& type) {
  return std::all_of(type.begin(), type.end(), [](char c) { return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); });
}

/// Walks over all chunks. Before the pixel data every checksum must fit, and a chunk that is cut short is an error, as
/// in Pillow; in and after it only what Pillow misses is.
Layout read_layout(std::span<const std::byte> file, const std::string& name) {
  Layout layout;
  size_t at = kSignatureBytes;
  const auto first = chunk_at(file, at);
  if (!first) throw bad_data(name, file.size(), "IHDR", "the file ends before its header; expected a complete PNG");
  layout.header = parse_header(*first, name);
  layout.header_chunk = first->whole;
  bool past_pixels = false;
  bool wrong_checksum = false;
  while (const auto chunk = chunk_at(file, at)) {
    const bool pixels = chunk->type == "IDAT";
    past_pixels = past_pixels || (!pixels && layout.pixel_offset != 0);
    if (!is_chunk_type(chunk->type)) {
      if (past_pixels) break;
      throw bad_data(name, at + 4, "chunk", "found the type '{}'; expected four letters", escape_control(chunk->type));
    }
    if (!pixels && !past_pixels && !checksum_fits(*chunk, checksum(chunk->body))) {
      throw bad_data(name, at, chunk->type.c_str(), "{}; expected an intact chunk",
                     chunk->complete ? "its checksum does not fit its content" : "the file ends within it");
    }
    if (chunk->type == "IEND") break;
    // Only a palette before the pixel data is one, as in Pillow; and only there is it known to be whole.
    if (chunk->type == "PLTE" && layout.pixel_offset == 0 && layout.palette_chunk.empty()) {
      layout.palette_chunk = chunk->whole;
    }
    if (chunk->type == "eXIf" && layout.orientation == 1) layout.orientation = exif_orientation(chunk->body);
    if (pixels && !past_pixels) {
      if (layout.pixel_offset == 0) {
        layout.pixel_offset = at + 8;
        layout.pixel_checksum = checksum(chunk->whole.subspan(4, 4));
      }
      const uLong sum = checksum(chunk->body);
      layout.pixel_checksum = crc32_combine(layout.pixel_checksum, sum, static_cast<z_off_t>(chunk->body.size()));
      layout.pixel_data.push_back(chunk->body);
      layout.pixel_bytes += chunk->body.size();
      wrong_checksum = wrong_checksum || (chunk->complete && !checksum_fits(*chunk, sum));
    }
    if (!chunk->complete) {
      layout.damage.push_back("the file ends early");
      break;
    }
    at += chunk->whole.size();
  }
  if (wrong_checksum) layout.damage.push_back("a checksum of the pixel data does not fit");
  return layout;
}

/// What libspng reads: the chunks that make pixels, with all pixel data as one chunk, so that a file cut short after
/// its last row is read as Pillow reads it. Its checksum is made to fit: of pixel data Pillow checks the deflate stream
/// alone.
class Pieces {
 public:
  explicit Pieces(const Layout& layout) {
    add({reinterpret_cast<const std::byte*>("\x89PNG\r\n\x1a\n"), kSignatureBytes});
    add(layout.header_chunk);
    if (layout.header.colour_type == SPNG_COLOR_TYPE_INDEXED) add(layout.palette_chunk);
    for (size_t i = 0; i < 4; ++i) {
      frame_[i] = static_cast<std::byte>(layout.pixel_bytes >> (8 * (3 - i)));
      frame_[4 + i] = static_cast<std::byte>("IDAT"[i]);
    }
    add(frame_);
    for (const auto body : layout.pixel_data) add(body);
    for (size_t i = 0; i < 4; ++i) checksum_[i] = static_cast<std::byte>(layout.pixel_checksum >> (8 * (3 - i)));
    add(checksum_);
    add({reinterpret_cast<const std::byte*>(kEnd), sizeof kEnd});
  }
  Pieces(const Pieces&) = delete;
  Pieces& operator=(const Pieces&) = delete;

  static int read(spng_ctx*, void* user, void* out, size_t size) {
    auto& self = *static_cast<Pieces*>(user);
    auto* to = static_cast<std::byte*>(out);
    while (size > 0) {
      if (self.piece_ == self.pieces_.size()) return SPNG_IO_EOF;
      const auto left = self.pieces_[self.piece_].subspan(self.used_);
      const size_t part = std::min(size, left.size());
      std::copy_n(left.data(), part, to);
      to += part;
      size -= part;
      self.used_ += part;
      if (part == left.size()) {
        ++self.piece_;
        self.used_ = 0;
      }
    }
    return 0;
  }

 private:
  static constexpr unsigned char kEnd[] = {0, 0, 0, 0, 'I', 'E', 'N', 'D', 0xae, 0x42, 0x60, 0x82};

  void add(std::span<const std::byte> piece) {
    if (!piece.empty()) pieces_.push_back(piece);
  }

  std::array<std::byte, 8> frame_{};
  std::array<std::byte, 4> checksum_{};
  std::vector<std::span<const std::byte>> pieces_;
  size_t piece_ = 0;
  size_t used_ = 0;
};

/// Rows as PNG stores them to grey values or RGB, in Pillow's way: of 16 bits the upper 8, except in grey images,
/// where they are clipped; narrow grey values stretched to 0..255; alpha left out.
class RowConverter {
 public:
  RowConverter(const Layout& layout, PixelRows& rows) : header_(layout.header), rows_(rows) {
    if (header_.colour_type == SPNG_COLOR_TYPE_INDEXED) {
      // What a file does not name is grey, as in Pillow.
      for (size_t i = 0; i < palette_.size(); ++i) palette_[i] = static_cast<uint8_t>(i / 3);
      const auto colours = layout.palette_chunk.subspan(8, layout.palette_chunk.size() - 12);
      for (size_t i = 0; i < std::min(colours.size(), palette_.size()); ++i) {
        palette_[i] = std::to_integer<uint8_t>(colours[i]);
      }
    }
    line_.resize(static_cast<size_t>(header_.width) * 3);
  }

  void put(int64_t y, const uint8_t* row) {
    const int64_t width = header_.width;
    const int depth = header_.bit_depth;
    switch (header_.colour_type) {
      case SPNG_COLOR_TYPE_GRAYSCALE:
        if (depth == 8) return rows_.put_grey(y, row);
        for (int64_t x = 0; x < width; ++x) {
          line_[at(x)] = depth == 16 ? clip_to_8(row + 2 * x) : static_cast<uint8_t>(narrow(row, x) * stretch());
        }
        return rows_.put_grey(y, line_.data());
      case SPNG_COLOR_TYPE_GRAYSCALE_ALPHA:
        for (int64_t x = 0; x < width; ++x) line_[at(x)] = row[x * 2 * depth / 8];
        return rows_.put_grey(y, line_.data());
      case SPNG_COLOR_TYPE_INDEXED:
        for (int64_t x = 0; x < width; ++x) {
          std::copy_n(palette_.data() + 3 * size_t{depth == 8 ? row[x] : narrow(row, x)}, 3, line_.data() + 3 * x);
        }
        return rows_.put_rgb(y, line_.data());
      default:
        if (depth == 8) return rows_.put_rgb(y, row, header_.samples());
        for (int64_t x = 0; x < width; ++x) {
          for (int64_t c = 0; c < 3; ++c) line_[at(3 * x + c)] = row[2 * (x * header_.samples() + c)];
        }
        return rows_.put_rgb(y, line_.data());
    }
  }

 private:
  static size_t at(int64_t index) { return static_cast<size_t>(index); }
  static uint8_t clip_to_8(const uint8_t* big_endian_16) {
    return big_endian_16[0] != 0 ? uint8_t{255} : big_endian_16[1];
  }
  uint8_t narrow(const uint8_t* row, int64_t x) const {
    const int64_t bit = x * header_.bit_depth;
    const auto shift = static_cast<int>(8 - header_.bit_depth - bit % 8);
    return static_cast<uint8_t>(row[bit / 8] >> shift & ((1 << header_.bit_depth) - 1));
  }
  int stretch() const { return 255 / ((1 << header_.bit_depth) - 1); }

  const Header& header_;
  PixelRows& rows_;
  std::array<uint8_t, 3 * 256> palette_{};
  std::vector<uint8_t> line_;
};

[[noreturn]] void throw_spng(const Layout& layout, const std::string& name, int error) {
  if (error == SPNG_EMEM) {
    throw ResourceError(ExitCode::limit, "{}: not enough memory for {} x {} pixels; expected a smaller image", name,
                        layout.header.width, layout.header.height);
  }
  throw bad_data(name, layout.pixel_offset, "pixel data", "found damage ({}); expected an intact PNG",
                 spng_strerror(error));
}

}  // namespace

ImageInfo probe_png(std::span<const std::byte> file, const std::string& name) {
  const Layout layout = read_layout(file, name);
  const Header& header = layout.header;
  ImageInfo info{
      .format = ImageFormat::png, .width = header.width, .height = header.height, .orientation = layout.orientation};
  switch (header.colour_type) {
    case SPNG_COLOR_TYPE_GRAYSCALE:
      info.mode = header.bit_depth == 16 ? "I;16" : header.bit_depth == 1 ? "1" : "L";
      break;
    case SPNG_COLOR_TYPE_GRAYSCALE_ALPHA: info.mode = "LA"; break;
    case SPNG_COLOR_TYPE_INDEXED: info.mode = "P"; break;
    case SPNG_COLOR_TYPE_TRUECOLOR: info.mode = "RGB"; break;
    default: info.mode = "RGBA"; break;
  }
  return info;
}

Image decode_png(std::span<const std::byte> file, const std::string& name, const ImageInfo& info,
                 const DecodeOptions& options) {
  const Layout layout = read_layout(file, name);
  const Header& header = layout.header;
  if (header.colour_type == SPNG_COLOR_TYPE_INDEXED && layout.palette_chunk.empty()) {
    throw bad_data(name, layout.pixel_offset, "PLTE", "found no palette; expected one in an image of indices");
  }
  const uint64_t bits = static_cast<uint64_t>(header.bit_depth) * static_cast<uint64_t>(header.samples());
  const uint64_t row_bytes = (static_cast<uint64_t>(header.width) * bits + 7) / 8;
  const auto raw_bytes = checked_multiply({row_bytes, static_cast<uint64_t>(header.height)});
  const auto most_bytes = checked_multiply({layout.pixel_bytes, kMaxDeflateRatio});
  if (!raw_bytes || (most_bytes && *raw_bytes > *most_bytes) || layout.pixel_bytes > INT32_MAX) {
    throw bad_data(name, layout.pixel_offset, "pixel data",
                   "found {} bytes for {} x {} pixels of {} bits; expected enough to hold them", layout.pixel_bytes,
                   header.width, header.height, bits);
  }
  PixelRows rows(name, options.channels, info.height, info.width);
  Pieces pieces(layout);
  const std::unique_ptr<spng_ctx, void (*)(spng_ctx*)> png(spng_ctx_new(0), spng_ctx_free);
  if (!png) throw_spng(layout, name, SPNG_EMEM);
  const auto require = [&](int error) {
    if (error != 0) throw_spng(layout, name, error);
  };
  require(spng_set_png_stream(png.get(), Pieces::read, &pieces));
  RowConverter converter(layout, rows);
  if (header.interlaced) {
    // Zeros that nobody wrote yet, as libspng sets bits where pixels are narrow.
    const std::unique_ptr<uint8_t, void (*)(void*)> raw(static_cast<uint8_t*>(std::calloc(*raw_bytes, 1)), std::free);
    if (!raw) throw_spng(layout, name, SPNG_EMEM);
    require(spng_decode_image(png.get(), raw.get(), *raw_bytes, SPNG_FMT_RAW, 0));
    for (int64_t y = 0; y < header.height; ++y) {
      converter.put(y, raw.get() + static_cast<uint64_t>(y) * row_bytes);
    }
  } else {
    require(spng_decode_image(png.get(), nullptr, 0, SPNG_FMT_RAW, SPNG_DECODE_PROGRESSIVE));
    std::vector<uint8_t> row(row_bytes);
    for (int64_t y = 0; y < header.height; ++y) {
      const int result = spng_decode_row(png.get(), row.data(), row.size());
      require(result == SPNG_EOI ? 0 : result);
      converter.put(y, row.data());
    }
  }
  if (options.damage != nullptr) {
    options.damage->insert(options.damage->end(), layout.damage.begin(), layout.damage.end());
  }
  return rows.take();
}

}  // namespace resnet
