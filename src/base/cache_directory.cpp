#include "base/cache_directory.h"

#include <cstdlib>

namespace resnet {

std::filesystem::path cache_directory() {
  if (const char* xdg = std::getenv("XDG_CACHE_HOME"); xdg && *xdg == '/') return std::filesystem::path(xdg) / "resnet";
  if (const char* home = std::getenv("HOME"); home && *home == '/')
    return std::filesystem::path(home) / ".cache" / "resnet";
  return {};
}

}  // namespace resnet
