#pragma once

#include <filesystem>

namespace resnet {

/// Where this user's caches lie: XDG_CACHE_HOME/resnet, or ~/.cache/resnet; empty when neither variable holds an
/// absolute path. It need not exist.
std::filesystem::path cache_directory();

}  // namespace resnet
