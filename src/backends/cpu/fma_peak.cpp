#include <algorithm>
#include <chrono>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/simd/isa_kernels.h"

namespace resnet {

double measure_fma_peak(int threads) {
  const auto fma_loop = simd::isa_kernels(detected_isa()).fma_loop;
  constexpr int64_t kIterations = 1 << 21;
  double best = 0;
  for (int round = 0; round < 7; ++round) {
    double flops = 0;
    const auto start = std::chrono::steady_clock::now();
#pragma omp parallel for num_threads(threads) reduction(+ : flops)
    for (int thread = 0; thread < threads; ++thread) flops += fma_loop(kIterations);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    best = std::max(best, flops / took.count());
  }
  return best;
}

}  // namespace resnet
