#pragma once
// The half-precision convolutions' plain-data interface, shared by the dispatcher (../conv2d_half.h) and the
// translation units compiled per instruction set. No functions with code here: see vec.h.

#include <cstddef>
#include <cstdint>

namespace resnet {

/// A convolution without groups or dilation. x [n,c,h,w], weights [k,c,r,s] -> y [n,k,ho,wo].
struct HalfConvProblem {
  int64_t n = 1, c = 1, k = 1, h = 1, w = 1, r = 1, s = 1;
  int64_t stride_h = 1, stride_w = 1, pad_h = 0, pad_w = 0;
  int64_t ho = 1, wo = 1;
  int tile = 0;     ///< 0: direct; m = 2, 3, 4: F(m x m, 3 x 3), for 3x3 of stride 1 with equal padding of 0 or 1
  int threads = 1;  ///< OpenMP threads; the result does not depend on it
};

/// x, y and residual are nChw{B}c f32, B = HalfConvKernels::block, as for WinogradForward.
struct HalfConvForward {
  const float* x = nullptr;
  const void* packed = nullptr;     ///< what pack_weights wrote
  const float* bias = nullptr;      ///< [k], not padded; optional
  const float* residual = nullptr;  ///< y's layout, added before the ReLU; optional; may be y itself
  bool relu = false;
  float* y = nullptr;
  void* scratch = nullptr;
};

/// One instruction set's kernels. None allocates or throws.
struct HalfConvKernels {
  int block;    ///< B of the layouts
  bool native;  ///< the processor's own half-precision arithmetic; else emulated, with the same roundings
  size_t (*packed_weight_bytes)(const HalfConvProblem& p);
  /// w: f32 OIhw{B}i{B}o.
  void (*pack_weights)(const HalfConvProblem& p, const float* w, void* packed);
  size_t (*scratch_bytes)(const HalfConvProblem& p);
  void (*forward)(const HalfConvProblem& p, const HalfConvForward& args);
};

}  // namespace resnet
