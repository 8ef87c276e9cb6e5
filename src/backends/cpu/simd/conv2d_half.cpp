#include "backends/cpu/simd/conv2d_half.h"

#include "backends/cpu/simd/conv2d_half_impl.h"

namespace resnet::simd::RESNET_ISA {

extern const HalfConvKernels half_convolution;
const HalfConvKernels half_convolution = HalfConvByTile<kBlock>::kernels;

}  // namespace resnet::simd::RESNET_ISA
