#pragma once
// A stem at inference: a convolution that reads an image with few channels, row-major, and the max pool behind it.

#include <cstddef>
#include <cstdint>

namespace resnet {

/// x [N,C,H,W] row-major, weights packed for blocks of B channels -> y [N][ceil(K/B)][Po][Qo][B], the pooled map of
/// relu?(conv + bias). Channels added by padding come out as zeros. A pool of 1x1 is none.
struct StemForward {
  int64_t N = 0, C = 0, H = 0, W = 0;
  int64_t K = 0, R = 0, S = 0;
  int64_t stride = 1, pad = 0;  ///< stride is 1 or 2
  int64_t Ho = 0, Wo = 0;       ///< of the convolution
  int64_t pool_kernel = 1, pool_stride = 1, pool_pad = 0;
  int64_t Po = 0, Qo = 0;
  bool relu = false;
  const float* x = nullptr;
  const float* packed = nullptr;  ///< what `pack` wrote
  const float* bias = nullptr;    ///< [K]; optional
  float* y = nullptr;
  void* scratch = nullptr;  ///< 64-byte aligned
  int threads = 1;          ///< results do not depend on it
};

struct StemForwardKernels {
  int block;  ///< B
  size_t (*packed_bytes)(const StemForward&);
  /// From w [K,C,R,S] row-major.
  void (*pack)(const StemForward&, const float* w, float* packed);
  size_t (*scratch_bytes)(const StemForward&);
  void (*run)(const StemForward&);
};

}  // namespace resnet
