#include "data/class_names.h"

#include "base/utf8.h"

namespace resnet {

bool is_utf8(const std::string& text) {
  for (size_t at = 0; at < text.size();) {
    const auto point = code_point_at(text, at);
    if (!point) return false;
    at += point->bytes;
  }
  return true;
}

}  // namespace resnet
