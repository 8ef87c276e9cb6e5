#pragma once
// The AVX-512 intrinsics that simd/ uses, in AVX2's or plain C: SIMDe's where its 0.7.4 (Debian 12) has them, and the
// few that it lacks. For tests only; see isa_macros.h. Those below take each half of a vector through AVX2's
// instruction of the same name, which the manual defines lane by lane alike; the two that narrow follow the manual's
// VPMOVDB.

// AVX2's intrinsics are the compiler's, also where SIMDe has them.
#define SIMDE_X86_AVX512F_ENABLE_NATIVE_ALIASES
#define SIMDE_X86_AVX512BW_ENABLE_NATIVE_ALIASES
#define SIMDE_X86_AVX512VNNI_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

namespace resnet::simd::RESNET_ISA {

typedef simde__m512i Wide;

/// Stores to 64 aligned bytes, as the instruction, which faults elsewhere.
inline __attribute__((always_inline)) void emulated_stream_ps(float* p, simde__m512 v) {
  if (reinterpret_cast<uintptr_t>(p) % 64 != 0) __builtin_trap();
  simde_mm512_store_ps(p, v);
}
/// By the rounding mode: to nearest, ties to even; 0x80000000 outside of an int32.
inline __attribute__((always_inline)) Wide emulated_cvtps_epi32(simde__m512 v) {
  const simde__m512_private a = simde__m512_to_private(v);
  simde__m512i_private r;
  for (int i = 0; i < 2; ++i) r.m256i[i] = _mm256_cvtps_epi32(a.m256[i]);
  return simde__m512i_from_private(r);
}
inline __attribute__((always_inline)) simde__m512 emulated_cvtepi32_ps(Wide v) {
  const simde__m512i_private a = simde__m512i_to_private(v);
  simde__m512_private r;
  for (int i = 0; i < 2; ++i) r.m256[i] = _mm256_cvtepi32_ps(a.m256i[i]);
  return simde__m512_from_private(r);
}
inline __attribute__((always_inline)) Wide emulated_cvtepi8_epi32(__m128i v) {
  simde__m512i_private r;
  r.m256i[0] = _mm256_cvtepi8_epi32(v);
  r.m256i[1] = _mm256_cvtepi8_epi32(_mm_srli_si128(v, 8));
  return simde__m512i_from_private(r);
}
inline __attribute__((always_inline)) Wide emulated_cvtepu8_epi32(__m128i v) {
  simde__m512i_private r;
  r.m256i[0] = _mm256_cvtepu8_epi32(v);
  r.m256i[1] = _mm256_cvtepu8_epi32(_mm_srli_si128(v, 8));
  return simde__m512i_from_private(r);
}
/// Each number's low eight bits.
inline __attribute__((always_inline)) __m128i emulated_cvtepi32_epi8(Wide v) {
  const simde__m512i_private a = simde__m512i_to_private(v);
  simde__m128i_private r;
  for (int i = 0; i < 16; ++i) r.u8[i] = static_cast<uint8_t>(a.u32[i]);
  return simde__m128i_from_private(r);
}
/// Of lanes without their bit in `lanes`, zero.
inline __attribute__((always_inline)) Wide emulated_maskz_cvtepu8_epi32(simde__mmask16 lanes, __m128i v) {
  return simde_mm512_maskz_mov_epi32(lanes, emulated_cvtepu8_epi32(v));
}
inline __attribute__((always_inline)) __m128i emulated_maskz_cvtepi32_epi8(simde__mmask16 lanes, Wide v) {
  return emulated_cvtepi32_epi8(simde_mm512_maskz_mov_epi32(lanes, v));
}

#undef _mm512_madd_epi16  // which 0.7.4 takes for the masked one
#define _mm512_madd_epi16 simde_mm512_madd_epi16
#define _mm512_stream_ps emulated_stream_ps
#define _mm512_cvtps_epi32 emulated_cvtps_epi32
#define _mm512_cvtepi32_ps emulated_cvtepi32_ps
#define _mm512_cvtepi8_epi32 emulated_cvtepi8_epi32
#define _mm512_cvtepu8_epi32 emulated_cvtepu8_epi32
#define _mm512_cvtepi32_epi8 emulated_cvtepi32_epi8
#define _mm512_maskz_cvtepu8_epi32 emulated_maskz_cvtepu8_epi32
#define _mm512_maskz_cvtepi32_epi8 emulated_maskz_cvtepi32_epi8

}  // namespace resnet::simd::RESNET_ISA
