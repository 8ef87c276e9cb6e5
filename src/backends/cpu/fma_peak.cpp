#include <omp.h>

#include <algorithm>
#include <chrono>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/simd/isa.h"
#include "base/error.h"

namespace resnet {

// Defined by simd/fma_peak.cpp, compiled once per instruction set.
namespace simd::generic {
double fma_loop(int64_t iterations);
}
namespace simd::avx2 {
double fma_loop(int64_t iterations);
}
namespace simd::avx512 {
double fma_loop(int64_t iterations);
}

namespace {

double fma_loop(Isa isa, int64_t iterations) {
  switch (isa) {
    case Isa::generic: return simd::generic::fma_loop(iterations);
    case Isa::avx2: return simd::avx2::fma_loop(iterations);
    case Isa::avx512: return simd::avx512::fma_loop(iterations);
  }
  throw InternalError("unknown instruction set");
}

}  // namespace

double measure_fma_peak(int threads) {
  const Isa isa = detected_isa();
  constexpr int64_t kIterations = 1 << 21;
  double best = 0;
  for (int round = 0; round < 7; ++round) {
    double flops = 0;
    const auto start = std::chrono::steady_clock::now();
#pragma omp parallel for num_threads(threads) reduction(+ : flops)
    for (int thread = 0; thread < threads; ++thread) flops += fma_loop(isa, kIterations);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    best = std::max(best, flops / took.count());
  }
  return best;
}

}  // namespace resnet
