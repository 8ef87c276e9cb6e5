#pragma once
// The names of classes as data sets give them.

#include <string>

namespace resnet {

/// Whether `text` is well-formed UTF-8. A class's name must be: the model file keeps it as JSON, which has no other
/// way.
bool is_utf8(const std::string& text);

}  // namespace resnet
