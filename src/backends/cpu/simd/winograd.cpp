#include "backends/cpu/simd/winograd.h"

#include "backends/cpu/simd/winograd_impl.h"

namespace resnet::simd::RESNET_ISA {

extern const WinogradKernels winograd;
const WinogradKernels winograd = WinogradByTile<kBlock>::kernels;

}  // namespace resnet::simd::RESNET_ISA
