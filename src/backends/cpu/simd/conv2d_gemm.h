#pragma once
// A forward convolution as one matrix product over channels and taps, f32, of any kernel, stride, padding and dilation.

#include <cstddef>
#include <cstdint>

namespace resnet {

/// y = act(conv(x, w) [+ bias] [+ residual]), without groups. x [n,c,h,w] and y [n,k,ho,wo] are nChw{B}c, weights
/// [k,c,r,s] OIhw{B}i{B}o, B = GemmConvKernels::block; what pads a block is zero, and comes out as exact zeros.
struct GemmConv {
  int64_t n = 1, c = 1, k = 1, h = 1, w = 1, r = 1, s = 1;
  int64_t stride_h = 1, stride_w = 1, pad_h = 0, pad_w = 0, dilation_h = 1, dilation_w = 1;
  int64_t ho = 1, wo = 1;
  int threads = 1;  ///< OpenMP threads; the result does not depend on it, bit for bit
  const float* x = nullptr;
  const float* weights = nullptr;
  const float* bias = nullptr;      ///< [k], not padded; optional
  const float* residual = nullptr;  ///< y's layout, added before the ReLU; optional; may be y itself
  bool relu = false;
  float* y = nullptr;
  void* scratch = nullptr;  ///< scratch_bytes, 64-byte aligned
};

/// One instruction set's kernels; neither allocates nor throws.
struct GemmConvKernels {
  int block;  ///< B of the layouts
  size_t (*scratch_bytes)(const GemmConv& p);
  void (*forward)(const GemmConv& p);
};

}  // namespace resnet
