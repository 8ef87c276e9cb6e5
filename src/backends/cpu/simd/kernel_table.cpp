#include "backends/cpu/simd/isa_kernels.h"
#include "backends/cpu/simd/kernels.h"

namespace resnet::simd::RESNET_ISA {
namespace {

template <int B>
SimdKernels make_table() {
  SimdKernels table = {};
  table.block = B;
  add_batch_norm<B>(table);
  add_blur_pool<B>(table);
  add_elementwise<B>(table);
  add_layout<B>(table);
  add_loss<B>(table);
  add_pool<B>(table);
  add_reduce<B>(table);
  add_scale<B>(table);
  return table;
}

const SimdKernels& kernel_table(int64_t block) {
  static const SimdKernels narrow = make_table<8>();
  static const SimdKernels wide = make_table<16>();
  return block == 8 ? narrow : wide;
}

}  // namespace

extern const WinogradKernels winograd;            // winograd.cpp
extern const GemmConvKernels gemm_convolution;    // conv2d_gemm.cpp
extern const HalfConvKernels half_convolution;    // conv2d_half.cpp
extern const QuantizedKernels quantized_kernels;  // quantized.cpp
void stem_weight_grad(const StemWeightGrad& p);   // conv2d_stem.cpp
extern const StemForwardKernels stem_forward;     // conv2d_max_pool.cpp
double fma_loop(int64_t iterations);              // fma_peak.cpp

extern const IsaKernels kernels;
// Constant, so that no code compiled for this instruction set runs before it is chosen.
constinit const IsaKernels kernels = {kernel_table,      winograd,         gemm_convolution, half_convolution,
                                      quantized_kernels, stem_weight_grad, stem_forward,     fma_loop};

}  // namespace resnet::simd::RESNET_ISA
