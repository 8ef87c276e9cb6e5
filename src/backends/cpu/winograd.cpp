#include "backends/cpu/winograd.h"

#include "backends/cpu/simd/isa_kernels.h"

namespace resnet {

const WinogradKernels& winograd_kernels(Isa isa) { return simd::isa_kernels(isa).winograd; }

const char* winograd_refusal(const WinogradProblem& p) {
  // The bounds keep every index and scratch size far inside int64_t.
  constexpr int64_t kMostChannels = 1 << 16, kMostPixels = 1 << 16, kMostElements = int64_t{1} << 40;
  if (p.tile < 2 || p.tile > 4) return "tile must be 2, 3 or 4";
  if (p.stride < 1 || p.stride > 2) return "stride must be 1 or 2";
  if (p.pad < 0 || p.pad > 1) return "padding must be 0 or 1";
  if (p.threads < 1) return "needs at least one thread";
  if (p.n < 1 || p.c < 1 || p.k < 1 || p.h < 1 || p.w < 1) return "every size must be positive";
  if (p.h + 2 * p.pad < 3 || p.w + 2 * p.pad < 3) return "the padded image is smaller than the 3x3 kernel";
  if (p.c > kMostChannels || p.k > kMostChannels) return "more than 65536 channels";
  if (p.h > kMostPixels || p.w > kMostPixels) return "image side above 65536";
  if (p.n > kMostElements / (p.h * p.w) / (p.c > p.k ? p.c : p.k)) return "more than 2^40 elements";
  return nullptr;
}

}  // namespace resnet
