#pragma once
// The kernel's own files, as those of /proc: short texts.

#include <fstream>
#include <iterator>
#include <string>

namespace resnet {

/// All of it; empty where there is no such file.
inline std::string system_file(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace resnet
