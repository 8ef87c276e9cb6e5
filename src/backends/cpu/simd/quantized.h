#pragma once
// Kernels of the 8-bit ops. Activations lie as [N][H][W][C] without padding ("channels last").
//
// The sums are exact on every instruction set and by every algorithm (docs/decisions/0015-int8-in-whole-numbers.md), so
// that all give the same bytes. What follows the sums is rounded as ops/quantized_conv2d.h says; multiplications and
// additions are not contracted.

#include <cstddef>
#include <cstdint>

namespace resnet::simd {

/// The sizes of one convolution, by its usual letters. C and K count all groups.
struct QuantizedConvSize {
  int64_t N = 0, C = 0, H = 0, W = 0, K = 0, R = 1, S = 1, Ho = 0, Wo = 0;
  int64_t stride_h = 1, stride_w = 1, pad_h = 0, pad_w = 0, dilation_h = 1, dilation_w = 1, groups = 1;
  int threads = 1;
};

/// How the sums are made; all of them are exact.
enum class QuantizedAlgorithm {
  words,      ///< 16-bit pairs
  pairs,      ///< bytes whose products are added in pairs at 16 bits (pmaddubsw), AVX2
  bytes,      ///< four bytes at once, AVX-512 VNNI
  tiles,      ///< 64 bytes of 16 pixels and as many filters at once, AMX
  winograd2,  ///< F(2x2, 3x3) in whole numbers, 16-bit pairs: 2.25 times fewer products
  winograd4,  ///< F(4x4, 3x3) modulo 2^32: 4 times fewer
};

struct QuantizedConvArgs {
  const uint8_t* x = nullptr;
  const void* packed = nullptr;       ///< pack_weights' result
  const float* multiplier = nullptr;  ///< [K]
  const float* offset = nullptr;      ///< [K]
  const uint8_t* padding = nullptr;   ///< [C]
  const void* residual = nullptr;     ///< [N][Ho][Wo][K], or null; may be y
  bool residual_signed = false;       ///< i8, not u8
  const float* residual_multiplier = nullptr;
  float least = 0, largest = 255;  ///< of y; u8, or i8 where largest is 127
  void* y = nullptr;               ///< [N][Ho][Wo][K]
  void* scratch = nullptr;
};

/// f32 [N,C,H,W], row-major (block 1) or in blocks of `block` channels, and 8-bit values.
struct QuantizeArgs {
  int64_t N = 0, C = 0, H = 0, W = 0, block = 1;
  const float* x = nullptr;
  const float* factor = nullptr;  ///< [C]
  const float* zero = nullptr;    ///< [C]
  float least = 0, largest = 255;
  void* y = nullptr;
  int threads = 1;
};

/// y = (x - zero) * scale, blocked.
struct DequantizeArgs {
  int64_t N = 0, C = 0, H = 0, W = 0, block = 8;
  const void* x = nullptr;
  bool is_signed = false;
  float scale = 1, zero = 0;
  float* y = nullptr;
  int threads = 1;
};

struct QuantizedPoolArgs {
  int64_t N = 0, C = 0, H = 0, W = 0, Ho = 1, Wo = 1;
  int64_t kernel_h = 1, kernel_w = 1, stride_h = 1, stride_w = 1, pad_h = 0, pad_w = 0;
  const void* x = nullptr;
  bool is_signed = false;
  void* y = nullptr;  ///< of the maximum
  // Of the mean over the whole map: f32, [N][ceil(C/block)][block].
  float scale = 1;
  int64_t block = 8;
  float* mean = nullptr;
  int threads = 1;
};

/// The kernels of one instruction set.
struct QuantizedKernels {
  /// Whether this instruction set, on this processor, has the algorithm and it can do the problem.
  bool (*can)(QuantizedAlgorithm, const QuantizedConvSize&);
  /// Whether the algorithm is exact with these weights, whatever the pixels: no two of `pairs` may pass 16 bits, no sum
  /// of `winograd4` 26; the others are, with any.
  bool (*exact)(QuantizedAlgorithm, const QuantizedConvSize&, const int8_t* w);
  size_t (*packed_bytes)(QuantizedAlgorithm, const QuantizedConvSize&);
  /// `w` i8 row-major [K,C/groups,R,S].
  void (*pack_weights)(QuantizedAlgorithm, const QuantizedConvSize&, const int8_t* w, void* packed);
  size_t (*scratch_bytes)(QuantizedAlgorithm, const QuantizedConvSize&);
  void (*convolve)(QuantizedAlgorithm, const QuantizedConvSize&, const QuantizedConvArgs&);
  void (*quantize)(const QuantizeArgs&);
  void (*dequantize)(const DequantizeArgs&);
  void (*max_pool)(const QuantizedPoolArgs&);
  void (*global_avg_pool)(const QuantizedPoolArgs&);
};

}  // namespace resnet::simd
