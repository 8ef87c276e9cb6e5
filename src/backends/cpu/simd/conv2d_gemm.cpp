#include "backends/cpu/simd/conv2d_gemm.h"

#include "backends/cpu/simd/conv2d_gemm_impl.h"

namespace resnet::simd::RESNET_ISA {

extern const GemmConvKernels gemm_convolution;
const GemmConvKernels gemm_convolution = GemmConvolution<kBlock>::kernels;

}  // namespace resnet::simd::RESNET_ISA
