#pragma once
// The Winograd kernels' plain-data interface, shared by the dispatcher (../winograd.h) and the
// translation units compiled per instruction set. No functions with code here: see vec.h.

#include <cstddef>
#include <cstdint>

namespace resnet {

enum class WinogradPass { forward, backward_data, backward_weights };

/// A 3x3 convolution of dilation 1: always the forward convolution's sizes, also when a gradient is asked for, which
/// stride 1 alone has. x [n,c,h,w], weights [k,c,3,3] -> y [n,k,ho,wo], ho = (h + 2*pad - 3) / stride + 1.
struct WinogradProblem {
  int64_t n = 1, c = 1, k = 1, h = 1, w = 1;
  int64_t pad = 1;  ///< 0 or 1, zeros, on every side
  int tile = 4;     ///< m of F(m x m, 3 x 3): 2, 3 or 4
  int threads = 1;  ///< OpenMP threads; the result does not depend on it
  int stride = 1;   ///< 1 or 2
  /// Forward and backward_data: each thread has tiles of its own even where the weights are large, and reads all of
  /// them, where else the threads share the tiles and part the weights. The same bits.
  bool apart = false;
};

/// Activations are nChw{B}c: [N][ceil(C/B)][H][W][B], weights OIhw{B}i{B}o:
/// [ceil(K/B)][ceil(C/B)][3][3][B in][B out], B = WinogradKernels::block, padding zero. All of them
/// float and 64-byte aligned, as is scratch. Channels added by padding come out as exact zeros.
struct WinogradForward {
  const float* x = nullptr;
  const float* w = nullptr;         ///< blocked weights; ignored if `packed` is given
  const float* packed = nullptr;    ///< what pack_weights wrote, for constant weights (inference)
  const float* bias = nullptr;      ///< [k], not padded; optional
  const float* residual = nullptr;  ///< y's layout, added before the ReLU; optional; may be y itself
  bool relu = false;
  float* y = nullptr;
  void* scratch = nullptr;
};
struct WinogradBackwardData {
  const float* dy = nullptr;
  const float* w = nullptr;       ///< the forward's blocked weights; ignored if `packed` is given
  const float* packed = nullptr;  ///< what pack_weights wrote for WinogradPass::backward_data
  float* dx = nullptr;
  void* scratch = nullptr;
};
struct WinogradBackwardWeights {
  const float* x = nullptr;
  const float* dy = nullptr;
  float* dw = nullptr;  ///< OIhw{B}i{B}o
  void* scratch = nullptr;
};

/// One instruction set's kernels. None allocates or throws; the sizes must be supported ones.
struct WinogradKernels {
  int block;  ///< B of the layouts above
  /// Whether unpacked weights are transformed a piece at a time, as the products need them: large ones are.
  bool (*transforms_in_pieces)(const WinogradProblem& p, WinogradPass pass);
  /// Bytes pack_weights writes; `pass` is forward or backward_data.
  size_t (*packed_weight_bytes)(const WinogradProblem& p, WinogradPass pass);
  void (*pack_weights)(const WinogradProblem& p, WinogradPass pass, const float* w, float* packed);
  /// `packed`: the call will be given packed weights (no meaning for backward_weights).
  size_t (*scratch_bytes)(const WinogradProblem& p, WinogradPass pass, bool packed);
  void (*forward)(const WinogradProblem& p, const WinogradForward& args);
  void (*backward_data)(const WinogradProblem& p, const WinogradBackwardData& args);
  void (*backward_weights)(const WinogradProblem& p, const WinogradBackwardWeights& args);
};

}  // namespace resnet
