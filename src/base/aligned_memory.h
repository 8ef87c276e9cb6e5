#pragma once

#include <cstddef>
#include <utility>

namespace resnet {

/// Memory aligned for SIMD, zero at first. From 128 KiB on it is the kernel's, takes no time and no room before it is
/// touched, and is given back when it ends; from 2 MiB on it lies on pages of that size, where the system has them.
class AlignedMemory {
 public:
  AlignedMemory() = default;
  /// Throws ResourceError (limit) when it is not to be had.
  explicit AlignedMemory(size_t bytes);
  ~AlignedMemory();
  AlignedMemory(AlignedMemory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  AlignedMemory& operator=(AlignedMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  std::byte* data() const { return data_; }
  size_t size() const { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace resnet
