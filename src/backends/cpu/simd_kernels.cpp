#include "backends/cpu/simd_kernels.h"

#include "backends/cpu/simd/isa_kernels.h"
#include "base/error.h"

namespace resnet::simd {

// Defined by simd/kernel_table.cpp, compiled once per instruction set.
namespace generic {
extern const IsaKernels kernels;
}
#ifdef RESNET_X86_KERNELS
namespace avx2 {
extern const IsaKernels kernels;
}
namespace avx512 {
extern const IsaKernels kernels;
}
#endif
#ifdef RESNET_AVX512FP16_KERNELS
namespace avx512fp16 {
extern const HalfConvKernels half_convolution;  // conv2d_half.cpp: all else is avx512's
}
#endif

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

size_t l2_norm_scratch_bytes(Storage storage, const MapSize& size) {
  // A double for each partial sum; blocks of 8 are the most there can be.
  const auto parts = [](int64_t count, int64_t each) { return static_cast<size_t>((count + each - 1) / each); };
  switch (storage) {
    case Storage::plain: return parts(size.N * size.C * size.H * size.W, kL2NormRun) * sizeof(double);
    case Storage::maps: return static_cast<size_t>(size.N) * parts(size.C, 8) * sizeof(double);
    case Storage::filters: return parts(size.N, 8) * parts(size.C, 8) * sizeof(double);
  }
  throw InternalError("l2_norm_scratch_bytes: unknown storage");
}

const SimdKernels& simd_kernels(Isa isa) { return simd_kernels(isa, channel_block(isa)); }

const SimdKernels& simd_kernels(Isa isa, int64_t block) {
  check(block == 8 || block == 16, "simd_kernels: a block has 8 or 16 channels");
  return isa_kernels(isa).table(block);
}

const IsaKernels& isa_kernels(Isa isa) {
  switch (isa) {
    case Isa::generic: return generic::kernels;
#ifdef RESNET_X86_KERNELS
    case Isa::avx2: return avx2::kernels;
    case Isa::avx512:
    case Isa::avx512fp16: return avx512::kernels;
#else
    default: break;
#endif
  }
  throw InternalError("isa_kernels: unknown instruction set");
}

const HalfConvKernels* native_half_convolution([[maybe_unused]] Isa isa) {
#ifdef RESNET_AVX512FP16_KERNELS
  if (isa == Isa::avx512fp16) return &avx512fp16::half_convolution;
#endif
  return nullptr;
}

}  // namespace resnet::simd
