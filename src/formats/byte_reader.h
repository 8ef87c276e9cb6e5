#pragma once
// Little-endian fields of a hostile file, taken one after another; none is read past the end of what there is.

#include <bit>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/error.h"

namespace resnet {

/// Walks over `bytes`, which lie at byte `base` of the file `path`. Every refusal is bad_data with the byte's place in
/// the file.
class ByteReader {
 public:
  ByteReader(const std::string& path, std::string_view bytes, uint64_t base) : path_(path), bytes_(bytes), base_(base) {
    static_assert(std::endian::native == std::endian::little, "numbers are copied as they lie");
  }

  /// Of the next byte, in the file.
  uint64_t offset() const { return base_ + at_; }
  /// Of the next byte, in `bytes`.
  size_t position() const { return at_; }
  size_t left() const { return bytes_.size() - at_; }

  /// The next sizeof(T) bytes as an unsigned or signed integer; `field` names it in the error.
  template <class T>
  T number(const char* field) {
    static_assert(std::is_integral_v<T>);
    T value;
    std::memcpy(&value, text(sizeof(T), field).data(), sizeof(T));
    return value;
  }

  /// The next `count` bytes.
  std::string_view text(uint64_t count, const char* field) {
    if (count > left()) {
      throw bad_data(path_, offset(), field, "{} bytes, but {} are left here; expected as many as the file says", count,
                     left());
    }
    const std::string_view taken = bytes_.substr(at_, static_cast<size_t>(count));
    at_ += static_cast<size_t>(count);
    return taken;
  }

 private:
  const std::string& path_;
  std::string_view bytes_;
  uint64_t base_;
  size_t at_ = 0;
};

}  // namespace resnet
