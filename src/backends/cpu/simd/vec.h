#pragma once
// Vectors of B floats by the compiler's vector extensions: one source for every instruction set. A
// vector wider than the machine's is lowered by the compiler, so the width of the layout (B) and
// the width of the registers are independent, and B = 16 can be tested on a CPU with 8 lanes.
//
// Every file in simd/ is compiled once per Isa with RESNET_ISA naming it. All code, this header
// included, lives in namespace simd::RESNET_ISA and uses no std:: templates or inline functions:
// the linker keeps one copy of those, perhaps the one compiled for a CPU this machine is not.
// The arithmetic a*b + c is contracted to FMA (-ffp-contract=fast) where the instruction set has it. Which product that
// takes, and whether, the optimiser decides at each place by what lies around it: fmadd and its kin say it where two
// places have to give the same bits.

#include <cstddef>
#include <cstdint>

#include "backends/cpu/simd/isa_macros.h"
#ifdef __FMA__
#include <immintrin.h>
#endif

#ifndef RESNET_ISA
#error "simd/ sources are compiled with RESNET_ISA=generic|avx2|avx512|avx512fp16"
#endif

/// Unrolls the next loop completely, so that arrays indexed by its counter become registers.
#if defined(__clang__)
#define RESNET_UNROLL _Pragma("clang loop unroll(full)")
#else
#define RESNET_UNROLL _Pragma("GCC unroll 64")
#endif
#define RESNET_INLINE inline __attribute__((always_inline))

namespace resnet::simd::RESNET_ISA {

#if defined(RESNET_ISA_avx512) || defined(RESNET_ISA_avx512fp16)
constexpr int kBlock = 16;
#else
constexpr int kBlock = 8;
#endif

template <int B>
struct VecOf {
  typedef float type __attribute__((vector_size(B * 4)));
  /// For loads and stores: any float's alignment, and may look at memory declared as float.
  typedef float unaligned __attribute__((vector_size(B * 4), aligned(4), may_alias));
};
template <int B>
using Vec = typename VecOf<B>::type;

template <int B>
RESNET_INLINE Vec<B> load(const float* p) {
  return *reinterpret_cast<const typename VecOf<B>::unaligned*>(p);
}
template <int B>
RESNET_INLINE void store(float* p, const Vec<B>& v) {
  *reinterpret_cast<typename VecOf<B>::unaligned*>(p) = v;
}
template <int B>
RESNET_INLINE Vec<B> splat(float value) {
  return value - Vec<B>{};  // exact for every value, so it folds to a broadcast
}
template <int B>
RESNET_INLINE Vec<B> zero() {
  return Vec<B>{};
}

/// Lanes of the widest register that the compiler has in this build.
#if defined(__AVX512F__)
constexpr int kRegisterLanes = 16;
#elif defined(__AVX__)
constexpr int kRegisterLanes = 8;
#else
constexpr int kRegisterLanes = 4;
#endif
/// Those that the code is written for, more only where AVX-512 is emulated; GCC lowers comparisons of wider vectors to
/// scalars.
#if defined(RESNET_AVX512)
constexpr int kNativeLanes = 16;
#else
constexpr int kNativeLanes = kRegisterLanes;
#endif

// Fused, rounded once, where V is a register of an instruction set with FMA; else what the compiler makes of it.
#if defined(__AVX512F__) && defined(__FMA__)
#define RESNET_FUSED(NAME)                                                                      \
  if constexpr (sizeof(V) == 64) return (V)_mm512_##NAME##_ps((__m512)a, (__m512)b, (__m512)c); \
  if constexpr (sizeof(V) == 32) return (V)_mm256_##NAME##_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__FMA__)
#define RESNET_FUSED(NAME) \
  if constexpr (sizeof(V) == 32) return (V)_mm256_##NAME##_ps((__m256)a, (__m256)b, (__m256)c);
#else
#define RESNET_FUSED(NAME)
#endif
/// factor * b + c; the factor is a V, or a float for every lane.
template <class A, class V>
RESNET_INLINE V fmadd(const A& factor, const V& b, const V& c) {
  const V a = factor - V{};
  RESNET_FUSED(fmadd)
  return a * b + c;
}
/// c - factor * b.
template <class A, class V>
RESNET_INLINE V fnmadd(const A& factor, const V& b, const V& c) {
  const V a = factor - V{};
  RESNET_FUSED(fnmadd)
  return c - a * b;
}
#undef RESNET_FUSED

RESNET_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
RESNET_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
RESNET_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
RESNET_INLINE int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

struct Range {
  int64_t first, last;
};

/// The part of `count` items that belongs to one thread of a team.
RESNET_INLINE Range share(int64_t count, int64_t thread, int64_t threads) {
  return {count * thread / threads, count * (thread + 1) / threads};
}

/// max(v, 0); a NaN stays a NaN, so that a diverging run is seen.
template <int B>
RESNET_INLINE Vec<B> relu(const Vec<B>& v) {
  if constexpr (B > kNativeLanes) {
    union {
      Vec<B> whole;
      Vec<B / 2> half[2];
    } u = {v};
    u.half[0] = relu<B / 2>(u.half[0]);
    u.half[1] = relu<B / 2>(u.half[1]);
    return u.whole;
  } else {
    const Vec<B> nothing = {};
    return nothing > v ? nothing : v;
  }
}

/// The larger of each lane; where one is a NaN, b's.
template <int B>
RESNET_INLINE Vec<B> larger_of(const Vec<B>& a, const Vec<B>& b) {
  if constexpr (B > kNativeLanes) {
    union Halves {
      Vec<B> whole;
      Vec<B / 2> half[2];
    };
    Halves u = {a};
    const Halves v = {b};
    u.half[0] = larger_of<B / 2>(u.half[0], v.half[0]);
    u.half[1] = larger_of<B / 2>(u.half[1], v.half[1]);
    return u.whole;
  } else {
    return a > b ? a : b;
  }
}

}  // namespace resnet::simd::RESNET_ISA
