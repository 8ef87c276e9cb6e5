#include "base/utf8.h"

#include <cstdint>

namespace resnet {

std::optional<CodePoint> code_point_at(std::string_view text, size_t at) {
  if (at >= text.size()) return std::nullopt;
  const auto byte = [&](size_t i) -> uint32_t { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const uint32_t lead = byte(at);
  const size_t bytes = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
  if (bytes == 0) return std::nullopt;
  uint32_t value = bytes == 1 ? lead : lead & (0x7fu >> bytes);
  for (size_t i = 1; i < bytes; ++i) {
    if ((byte(at + i) & 0xc0) != 0x80) return std::nullopt;
    value = value << 6 | (byte(at + i) & 0x3f);
  }
  const uint32_t least = bytes == 3 ? 0x800 : bytes == 4 ? 0x10000 : 0;  // less is an overlong form
  if (value < least || (value >= 0xd800 && value <= 0xdfff) || value > 0x10ffff) return std::nullopt;
  return CodePoint{.value = static_cast<char32_t>(value), .bytes = bytes};
}

bool is_printable(char32_t c) {
  const bool control = c < 0x20 || (c >= 0x7f && c <= 0x9f);
  const bool noncharacter = (c >= 0xfdd0 && c <= 0xfdef) || (c & 0xfffe) == 0xfffe;
  return !control && !noncharacter;
}

}  // namespace resnet
