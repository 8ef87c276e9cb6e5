#pragma once
// Builds PNG files, intact and broken, and folders of them.

#include <zlib.h>

#include <filesystem>
#include <string_view>

#include "data/idx_bytes.h"

namespace resnet::testing_data {

inline Bytes text_bytes(std::string_view text) { return {text.begin(), text.end()}; }

inline Bytes png_chunk(std::string_view type, const Bytes& body) {
  Bytes chunk;
  append_big_endian(chunk, static_cast<uint32_t>(body.size()));
  const Bytes content = text_bytes(type) + body;
  chunk = chunk + content;
  append_big_endian(chunk, static_cast<uint32_t>(crc32(0, content.data(), static_cast<uInt>(content.size()))));
  return chunk;
}

inline Bytes zlib_packed(const Bytes& bytes) {
  uLongf size = compressBound(bytes.size());
  Bytes out(size);
  if (compress(out.data(), &size, bytes.data(), bytes.size()) != Z_OK) throw std::runtime_error("compress");
  out.resize(size);
  return out;
}

/// Of 8 bits; colour 0 is grey, 2 RGB. `rows` with a filter byte before each.
inline Bytes png_file(uint32_t width, uint32_t height, uint8_t colour, const Bytes& rows, const Bytes& extra = {}) {
  Bytes header;
  append_big_endian(header, width);
  append_big_endian(header, height);
  header = header + Bytes{8, colour, 0, 0, 0};
  return text_bytes("\x89PNG\r\n\x1a\n") + png_chunk("IHDR", header) + extra + png_chunk("IDAT", zlib_packed(rows)) +
         png_chunk("IEND", {});
}

/// A grey image of one value.
inline Bytes grey_png(uint32_t width, uint32_t height, uint8_t value) {
  Bytes rows;
  for (uint32_t y = 0; y < height; ++y) rows = rows + Bytes{0} + Bytes(width, value);
  return png_file(width, height, 0, rows);
}

/// Writes below a folder, whose sub-folders are made.
inline void write_below(const TempFolder& folder, const std::string& name, const Bytes& bytes) {
  std::filesystem::create_directories(std::filesystem::path(folder / name).parent_path());
  folder.write(name, bytes);
}

}  // namespace resnet::testing_data
