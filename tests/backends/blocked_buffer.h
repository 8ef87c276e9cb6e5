#pragma once
// Memory for the kernels' own tests, as the kernels have it: blocks of channels.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace resnet::testing {

/// 64-byte aligned floats between two guard lines that a kernel must leave alone.
class Buffer {
 public:
  explicit Buffer(size_t floats, float fill = 0)
      : size_(floats), all_(static_cast<float*>(std::aligned_alloc(64, (floats + 32 + 15) / 16 * 64)), &std::free) {
    std::fill(all_.get(), all_.get() + 16, kGuard);
    std::fill(data(), data() + floats, fill);
    std::fill(data() + floats, data() + floats + 16, kGuard);
  }
  float* data() { return all_.get() + 16; }
  const float* data() const { return all_.get() + 16; }
  size_t size() const { return size_; }
  float& operator[](int64_t i) { return data()[i]; }
  float operator[](int64_t i) const { return data()[i]; }
  bool guards_intact() const {
    for (int i = 0; i < 16; ++i) {
      if (all_.get()[i] != kGuard || data()[size_ + static_cast<size_t>(i)] != kGuard) return false;
    }
    return true;
  }

 private:
  static constexpr float kGuard = -12345.5f;
  size_t size_;
  std::unique_ptr<float, void (*)(void*)> all_;
};

inline bool same_bits(const Buffer& a, const Buffer& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

inline int64_t blocks(int64_t channels, int block) { return (channels + block - 1) / block; }
/// Of an element in [n][blocks][h][w][block].
inline int64_t map_at(int64_t channels, int64_t h, int64_t w, int block, int64_t n, int64_t c, int64_t y, int64_t x) {
  return (((n * blocks(channels, block) + c / block) * h + y) * w + x) * block + c % block;
}

}  // namespace resnet::testing
