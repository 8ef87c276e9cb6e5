#pragma once
// Everything in simd/ that the rest of the backend calls, one record for each instruction set it is compiled for.

#include <cstdint>

#include "backends/cpu/simd/conv2d_gemm.h"
#include "backends/cpu/simd/conv2d_half.h"
#include "backends/cpu/simd/conv2d_max_pool.h"
#include "backends/cpu/simd/conv2d_stem.h"
#include "backends/cpu/simd/isa.h"
#include "backends/cpu/simd/quantized.h"
#include "backends/cpu/simd/winograd.h"
#include "backends/cpu/simd_kernels.h"

namespace resnet::simd {

struct IsaKernels {
  const SimdKernels& (*table)(int64_t block);  ///< for blocks of 8 or 16 channels
  const WinogradKernels& winograd;
  const GemmConvKernels& gemm_convolution;
  const HalfConvKernels& half_convolution;  ///< emulated
  const QuantizedKernels& quantized;
  void (*stem_weight_grad)(const StemWeightGrad&);
  const StemForwardKernels& stem_forward;
  double (*fma_loop)(int64_t iterations);  ///< runs multiply-adds out of registers; the FLOPs done
};

/// Calling what is compiled for an instruction set that the processor lacks is undefined.
const IsaKernels& isa_kernels(Isa isa);

/// The half-precision convolutions that run on the processor's own half arithmetic; null where `isa` has none.
const HalfConvKernels* native_half_convolution(Isa isa);

}  // namespace resnet::simd
