#pragma once
// All size arithmetic on numbers that come from a file or the user goes through here.

#include <cstdint>
#include <initializer_list>
#include <optional>

namespace resnet {

inline std::optional<uint64_t> checked_multiply(std::initializer_list<uint64_t> factors) {
  uint64_t product = 1;
  for (uint64_t factor : factors) {
    if (__builtin_mul_overflow(product, factor, &product)) return std::nullopt;
  }
  return product;
}

inline std::optional<uint64_t> checked_add(uint64_t a, uint64_t b) {
  uint64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

}  // namespace resnet
