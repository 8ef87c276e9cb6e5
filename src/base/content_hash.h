#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

namespace resnet {

/// Tells contents apart that differ by accident. It is no protection from somebody who makes them alike on purpose.
struct ContentHash {
  uint64_t low = 0, high = 0;
  bool operator==(const ContentHash&) const = default;
  /// 32 lowercase digits.
  std::string hex() const;
};

/// XXH3 (xxHash 0.8, 128 bits) of each 256 KiB, and XXH3 of these, so that `threads` can share the work.
ContentHash content_hash(std::span<const std::byte> bytes, int threads = 1);
/// The same of `bytes` that read(offset, target) gives, called by several threads at once. Throws what it throws.
ContentHash content_hash(uint64_t bytes, int threads,
                         const std::function<void(uint64_t offset, std::span<std::byte> target)>& read);

}  // namespace resnet
