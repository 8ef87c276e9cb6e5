#pragma once

#include "backends/cpu/simd/vec.h"

namespace resnet::simd::RESNET_ISA {

/// Memory that is wanted next, asked for in even parts while something else computes. Weights are read in pieces of a
/// few kilobytes, from one place after another: at the start of each the processor would wait until it sees the
/// pattern.
struct Ahead {
  const char* next = nullptr;
  const char* end = nullptr;
  int64_t step = 0;  ///< bytes

  RESNET_INLINE Ahead() {}
  /// Nothing from a null pointer.
  RESNET_INLINE Ahead(const void* from, int64_t bytes, int64_t parts)
      : next(static_cast<const char*>(from)),
        end(from == nullptr ? next : next + bytes),
        step(round_up(ceil_div(bytes, larger(parts, 1)), 64)) {}

  /// The next part.
  RESNET_INLINE void fetch() {
    const char* stop = end - next < step ? end : next + step;
    for (; next < stop; next += 64) __builtin_prefetch(next, 0, 2);
  }
};

}  // namespace resnet::simd::RESNET_ISA
