#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "backends/cpu/cpu_backend.h"
#include "base/aligned_memory.h"

namespace resnet {

double measure_memory_bandwidth(int threads) {
  constexpr int kRounds = 4;  // the first touches the pages
  constexpr size_t kBytes = size_t{64} << 20;
  const AlignedMemory from(kBytes), to(kBytes);
  std::memset(from.data(), 1, kBytes);
  double best = 0;
  for (int round = 0; round < kRounds; ++round) {
    const auto start = std::chrono::steady_clock::now();
#pragma omp parallel num_threads(threads)
    {
      const auto thread = static_cast<size_t>(omp_get_thread_num()), team = static_cast<size_t>(omp_get_num_threads());
      const size_t begin = kBytes / team * thread, end = thread + 1 == team ? kBytes : kBytes / team * (thread + 1);
      std::memcpy(to.data() + begin, from.data() + begin, end - begin);
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    if (round > 0) best = std::max(best, 2.0 * static_cast<double>(kBytes) / took.count());
  }
  return best;
}

}  // namespace resnet
