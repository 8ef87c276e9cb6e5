#pragma once
// UTF-8 (RFC 3629), one code point at a time, for text that may be anything.

#include <cstddef>
#include <optional>
#include <string_view>

namespace resnet {

struct CodePoint {
  char32_t value = 0;
  size_t bytes = 0;
};

/// The code point that begins at text[at]. Nothing where the bytes are not well-formed: overlong forms, surrogates,
/// values past U+10FFFF, a sequence cut short, the end of the text.
std::optional<CodePoint> code_point_at(std::string_view text, size_t at);

/// A character that a reader may be shown: no control character (C0, DEL, C1) and no noncharacter (U+FDD0 to U+FDEF,
/// the last two of each plane), which cairo and HTML refuse.
bool is_printable(char32_t c);

}  // namespace resnet
