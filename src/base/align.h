#pragma once

#include <cstddef>

namespace resnet {

/// Where buffers begin: a cache line, and the widest vector register.
constexpr size_t kAlignment = 64;

constexpr size_t align_up(size_t bytes, size_t alignment = kAlignment) {
  return (bytes + alignment - 1) / alignment * alignment;
}

}  // namespace resnet
