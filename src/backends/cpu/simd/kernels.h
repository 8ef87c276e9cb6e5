#pragma once
// What the sources of the SIMD kernels share: the parts of the table, helpers over Vec<B>, and how
// work and partial sums are split. Compiled once per Isa, see vec.h.

#include <omp.h>
#ifdef __SSE__
#include <immintrin.h>
#endif

#include "backends/cpu/simd/vec.h"
#include "backends/cpu/simd_kernels.h"

namespace resnet::simd::RESNET_ISA {

// Each source adds its kernels for blocks of B channels to a table (kernel_table.cpp).
template <int B>
void add_batch_norm(SimdKernels& table);
template <int B>
void add_blur_pool(SimdKernels& table);
template <int B>
void add_elementwise(SimdKernels& table);
template <int B>
void add_layout(SimdKernels& table);
template <int B>
void add_loss(SimdKernels& table);
template <int B>
void add_pool(SimdKernels& table);
template <int B>
void add_reduce(SimdKernels& table);
template <int B>
void add_scale(SimdKernels& table);

/// Sums run in f32 over at most this many pixels, then continue in double.
constexpr int64_t kRun = 64;

/// One thread where waking a team costs more than the work over this many bytes.
RESNET_INLINE int useful_threads(int threads, int64_t bytes) { return bytes < 32768 ? 1 : threads; }

/// A sum over a batch is taken in parts of whole images, then over the parts in order: enough parts
/// for any team, few enough that small maps do not spend their time adding parts. It depends on the
/// size alone, so the result does not depend on the threads.
struct Parts {
  int64_t images, count;  ///< images in a part; parts
};
RESNET_INLINE Parts parts_of(const MapSize& size) {
  const int64_t images = larger(1, 256 / larger(1, size.H * size.W));
  return {images, ceil_div(size.N, images)};
}

/// Lanes b of the channel vector p[C] that exist in the block starting at `channel`; 0 elsewhere.
template <int B>
RESNET_INLINE Vec<B> load_channels(const float* p, int64_t channel, int64_t C) {
  if (channel + B <= C) return load<B>(p + channel);
  float lanes[B] = {};
  for (int64_t c = channel; c < C; ++c) lanes[c - channel] = p[c];
  return load<B>(lanes);
}

/// Stores past the caches, which saves reading the lines first: for outputs too large to be found
/// in a cache again. p is aligned to 64 bytes; end_streaming() comes before anybody reads.
template <int B>
RESNET_INLINE void store_streaming(float* p, Vec<B> v) {
#ifdef RESNET_AVX512
  if constexpr (B == 16) return _mm512_stream_ps(p, (__m512)v);
#endif
#ifdef __AVX__
  if constexpr (B == 8) return _mm256_stream_ps(p, (__m256)v);
#endif
#ifdef __SSE__
  if constexpr (B == 4) {
    return _mm_stream_ps(p, (__m128)v);
  } else {
    union {
      Vec<B> whole;
      Vec<B / 2> half[2];
    } u = {v};
    store_streaming<B / 2>(p, u.half[0]);
    store_streaming<B / 2>(p + B / 2, u.half[1]);
  }
#else
  store<B>(p, v);
#endif
}
RESNET_INLINE void end_streaming() {
#ifdef __SSE__
  _mm_sfence();
#endif
}
/// Whether to stream an output of `bytes` to p, of which nothing is cached because it is also read.
RESNET_INLINE bool worth_streaming(const float* p, int64_t bytes) {
  return bytes > (24 << 20) && reinterpret_cast<uintptr_t>(p) % 64 == 0;
}

/// sum[b] += v[b] in double.
template <int B>
RESNET_INLINE void add_to(double* sum, Vec<B> v) {
  float lanes[B];
  store<B>(lanes, v);
  for (int b = 0; b < B; ++b) sum[b] += static_cast<double>(lanes[b]);
}

/// f32 sum of at most kRun pixels, in four chains.
template <int B>
RESNET_INLINE Vec<B> sum_of_run(const float* x, int64_t pixels) {
  Vec<B> sum[4] = {};
  int64_t p = 0;
  for (; p + 4 <= pixels; p += 4) {
    sum[0] += load<B>(x + p * B);
    sum[1] += load<B>(x + (p + 1) * B);
    sum[2] += load<B>(x + (p + 2) * B);
    sum[3] += load<B>(x + (p + 3) * B);
  }
  for (; p < pixels; ++p) sum[0] += load<B>(x + p * B);
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

}  // namespace resnet::simd::RESNET_ISA
