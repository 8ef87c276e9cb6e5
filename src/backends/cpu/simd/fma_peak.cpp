#include "backends/cpu/simd/vec.h"

namespace resnet::simd::RESNET_ISA {

double fma_loop(int64_t iterations);

/// Runs independent multiply-adds out of registers and returns the FLOPs done.
double fma_loop(int64_t iterations) {
  constexpr int kChains = 12;  // latency 4 x 2 units, with room to spare, within 16 registers
  Vec<kRegisterLanes> chain[kChains];
  RESNET_UNROLL
  for (int i = 0; i < kChains; ++i) chain[i] = splat<kRegisterLanes>(static_cast<float>(i));
  // Opaque to the compiler, or it would compute the loop's result instead of running it.
  Vec<kRegisterLanes> factor = splat<kRegisterLanes>(0.5f);
  Vec<kRegisterLanes> term = splat<kRegisterLanes>(1.0f);
  asm volatile("" : "+v"(factor), "+v"(term));
  for (int64_t n = 0; n < iterations; ++n) {
    RESNET_UNROLL
    for (int i = 0; i < kChains; ++i) {
      chain[i] = chain[i] * factor + term;
      asm volatile("" : "+v"(chain[i]));
    }
  }
  return 2.0 * kChains * kRegisterLanes * static_cast<double>(iterations);
}

}  // namespace resnet::simd::RESNET_ISA
