#pragma once
// Vectors of 32-bit lanes for the 8-bit kernels, and how bytes come into them and leave them.

#include "backends/cpu/simd/kernels.h"

namespace resnet::simd::RESNET_ISA {
namespace {

#if defined(RESNET_AVX512)
constexpr int kLanes = 16;  // of 32 bits
constexpr int kRows = 12;   // of one register tile: 12 x 2 sums, two columns and a pixel fill 27 of 32 registers
#elif defined(__AVX2__)
constexpr int kLanes = 8;
constexpr int kRows = 6;  // 15 of 16
#else
constexpr int kLanes = 4;
constexpr int kRows = 6;
#endif
constexpr int kColumns = 2 * kLanes;  // filters of a sliver

// Unsigned, as sums may wrap on their way: Winograd's fit 32 bits only at the end.
typedef uint32_t U32 __attribute__((vector_size(kLanes * 4)));
typedef int32_t I32 __attribute__((vector_size(kLanes * 4)));
typedef float F32 __attribute__((vector_size(kLanes * 4)));
typedef int16_t I16 __attribute__((vector_size(kLanes * 4)));
typedef U32 U32Unaligned __attribute__((aligned(4), may_alias));
typedef F32 F32Unaligned __attribute__((aligned(4), may_alias));
typedef I16 I16Unaligned __attribute__((aligned(2), may_alias));
typedef uint32_t Word32 __attribute__((aligned(1), may_alias));

RESNET_INLINE U32 load_u32(const void* p) { return *static_cast<const U32Unaligned*>(p); }
RESNET_INLINE void store_u32(void* p, U32 v) { *static_cast<U32Unaligned*>(p) = v; }
RESNET_INLINE F32 load_f32(const float* p) { return *reinterpret_cast<const F32Unaligned*>(p); }
RESNET_INLINE U32 splat_u32(const void* p) { return *static_cast<const Word32*>(p) - U32{}; }
RESNET_INLINE F32 splat_f32(float v) { return v - F32{}; }

/// sum + a[2i] * b[2i] + a[2i+1] * b[2i+1], 16-bit a and b.
RESNET_INLINE U32 add_pairs(U32 sum, U32 a, U32 b) {
#if defined(RESNET_AVX512)
  return sum + (U32)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return sum + (U32)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
  return sum + (U32)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
  const I16 x = (I16)a, y = (I16)b;
  for (int i = 0; i < kLanes; ++i) sum[i] += static_cast<uint32_t>(x[2 * i] * y[2 * i] + x[2 * i + 1] * y[2 * i + 1]);
  return sum;
#endif
}

/// Nearest, halves to even.
RESNET_INLINE I32 rounded(F32 v) {
#if defined(RESNET_AVX512)
  return (I32)_mm512_cvtps_epi32((__m512)v);
#elif defined(__AVX2__)
  return (I32)_mm256_cvtps_epi32((__m256)v);
#elif defined(__SSE2__)
  return (I32)_mm_cvtps_epi32((__m128)v);
#else
  I32 r = {};
  for (int i = 0; i < kLanes; ++i) r[i] = static_cast<int32_t>(__builtin_nearbyintf(v[i]));
  return r;
#endif
}

/// `v` in [least, largest]; a NaN becomes least.
RESNET_INLINE F32 clamped(F32 v, F32 least, F32 largest) {
  const F32 above = v > least ? v : least;
  return above < largest ? above : largest;
}

/// The low bytes of v0 and v1.
RESNET_INLINE void store_bytes(uint8_t* p, I32 v0, I32 v1) {
#if defined(RESNET_AVX512)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8((__m512i)v0));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + kLanes), _mm512_cvtepi32_epi8((__m512i)v1));
#elif defined(__AVX2__)
  const __m256i halves =
      _mm256_packus_epi32((__m256i)(v0 & 255), (__m256i)(v1 & 255));  // 0-3 of v0, of v1, 4-7 of both
  const __m256i words = _mm256_permute4x64_epi64(halves, 0b11'01'10'00);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
#else
  for (int i = 0; i < kLanes; ++i) p[i] = static_cast<uint8_t>(v0[i]);
  for (int i = 0; i < kLanes; ++i) p[kLanes + i] = static_cast<uint8_t>(v1[i]);
#endif
}

RESNET_INLINE F32 load_bytes(const uint8_t* p, bool is_signed) {
#if defined(RESNET_AVX512)
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return (F32)_mm512_cvtepi32_ps(is_signed ? _mm512_cvtepi8_epi32(bytes) : _mm512_cvtepu8_epi32(bytes));
#elif defined(__AVX2__)
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return (F32)_mm256_cvtepi32_ps(is_signed ? _mm256_cvtepi8_epi32(bytes) : _mm256_cvtepu8_epi32(bytes));
#else
  F32 r = {};
  for (int i = 0; i < kLanes; ++i) r[i] = is_signed ? static_cast<int8_t>(p[i]) : p[i];
  return r;
#endif
}

/// Bytes as 16-bit words. Of `from` and `to` there is `room` for more elements than the n that count.
RESNET_INLINE void widen(int16_t* to, const uint8_t* from, int64_t n, [[maybe_unused]] int64_t room) {
#if defined(__AVX2__)
  if (n + 15 <= room) {
    for (int64_t i = 0; i < n; i += 16) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i),
                          _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
    }
    return;
  }
#endif
  for (int64_t i = 0; i < n; ++i) to[i] = from[i];
}

RESNET_INLINE void copy_bytes(uint8_t* to, const uint8_t* from, int64_t n) {
  __builtin_memcpy(to, from, static_cast<size_t>(n));
}
/// With room for more than n: whole registers are faster than the few bytes that rows of taps are.
RESNET_INLINE void copy_bytes(uint8_t* to, const uint8_t* from, int64_t n, int64_t room) {
  if (n + 31 > room) return copy_bytes(to, from, n);
  for (int64_t i = 0; i < n; i += 32) __builtin_memcpy(to + i, from + i, 32);
}

}  // namespace
}  // namespace resnet::simd::RESNET_ISA
