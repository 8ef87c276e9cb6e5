#include "backends/cpu/simd_kernels.h"

#include "base/error.h"

namespace resnet::simd {

// Defined by simd/kernel_table.cpp, compiled once per instruction set.
namespace generic {
const SimdKernels& kernel_table(int64_t block);
}
namespace avx2 {
const SimdKernels& kernel_table(int64_t block);
}
namespace avx512 {
const SimdKernels& kernel_table(int64_t block);
}

namespace {

// Enough for blocks of 8 and of 16 channels.
size_t padded_channels(const MapSize& size) { return (static_cast<size_t>(size.C) + 15) / 16 * 16; }

}  // namespace

size_t batch_norm_scratch_bytes(const MapSize& size) {
  const size_t images = static_cast<size_t>(size.N);
  return padded_channels(size) * (images * 2 * sizeof(double) + 4 * sizeof(float));
}

size_t channel_sum_scratch_bytes(const MapSize& size) {
  return padded_channels(size) * static_cast<size_t>(size.N) * sizeof(double);
}

size_t softmax_cross_entropy_scratch_bytes(int64_t rows) { return static_cast<size_t>(rows) * 2 * sizeof(double); }

const SimdKernels& simd_kernels(Isa isa) { return simd_kernels(isa, channel_block(isa)); }

const SimdKernels& simd_kernels(Isa isa, int64_t block) {
  check(block == 8 || block == 16, "simd_kernels: a block has 8 or 16 channels");
  switch (isa) {
    case Isa::generic: return generic::kernel_table(block);
    case Isa::avx2: return avx2::kernel_table(block);
    case Isa::avx512: return avx512::kernel_table(block);
  }
  throw InternalError("simd_kernels: unknown instruction set");
}

}  // namespace resnet::simd
