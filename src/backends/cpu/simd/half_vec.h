#pragma once
// Arithmetic in half precision (IEEE binary16: 11 significant bits, up to 65504) for the products of convolutions, with
// one interface over two implementations: AVX512-FP16's instructions, and an emulation of them, rounded correctly
// operation by operation, for every other instruction set. Both give the same bits; the emulation is for tests and for
// figures of accuracy, some twenty times slower than f32.
//
// Halves lie in memory as their bits. A vector holds B pairs (a, b) of neighbouring input channels: a pair times a pair
// of weights adds two channels' products to two sums, which come together when they leave for f32. So one 32-bit
// broadcast, which costs no arithmetic port, feeds two channels, where 16-bit broadcasts would compete with the FMAs.

#include <utility>

#include "backends/cpu/simd/vec.h"

namespace resnet::simd::RESNET_ISA {

using Half = uint16_t;

template <int B>
struct BitsOf {
  typedef uint32_t type __attribute__((vector_size(B * 4)));
  typedef uint32_t unaligned __attribute__((vector_size(B * 4), aligned(2), may_alias));
  typedef int32_t number __attribute__((vector_size(B * 4)));
  typedef uint16_t halves __attribute__((vector_size(B * 2), aligned(2), may_alias));
};
/// B lanes of 32 bits.
template <int B>
using Bits = typename BitsOf<B>::type;

#ifdef RESNET_AVX512FP16

template <int B>
struct HalfPairsOf;
template <>
struct HalfPairsOf<16> {
  typedef _Float16 type __attribute__((vector_size(64)));
};
template <int B>
using HalfPairs = typename HalfPairsOf<B>::type;

template <int B>
RESNET_INLINE HalfPairs<B> half_zero() {
  return HalfPairs<B>{};
}
/// B pairs.
template <int B>
RESNET_INLINE HalfPairs<B> half_load(const Half* p) {
  return (HalfPairs<B>)Bits<B>(*reinterpret_cast<const typename BitsOf<B>::unaligned*>(p));
}
/// The pair at p in all B places.
template <int B>
RESNET_INLINE HalfPairs<B> half_broadcast(const Half* p) {
  uint32_t pair;
  __builtin_memcpy(&pair, p, sizeof pair);
  return (HalfPairs<B>)(pair - Bits<B>{});
}
/// sum + a * b, rounded once.
template <int B>
RESNET_INLINE HalfPairs<B> half_fma(const HalfPairs<B>& a, const HalfPairs<B>& b, const HalfPairs<B>& sum) {
  return sum + a * b;  // contracted
}
/// The sums of each pair, rounded to half and widened: lane i of vector j becomes lane 2i + j of the two results.
template <int B>
RESNET_INLINE void half_pair_sums(const HalfPairs<B>& even, const HalfPairs<B>& odd, Vec<B>& low, Vec<B>& high) {
  const Bits<B> a = (Bits<B>)even, b = (Bits<B>)odd;
  const Bits<B> first = (a & 0xffffu) | (b << 16), second = (a >> 16) | (b & 0xffff0000u);
  const auto sums = (Bits<B>)((HalfPairs<B>)first + (HalfPairs<B>)second);
  // Intrinsics, as GCC 12 converts the upper half lane by lane; but not its extraction's, of which it warns in vain.
  low = (Vec<B>)_mm512_cvtxph_ps((__m256h)__builtin_shufflevector(sums, sums, 0, 1, 2, 3, 4, 5, 6, 7));
  high = (Vec<B>)_mm512_cvtxph_ps((__m256h)__builtin_shufflevector(sums, sums, 8, 9, 10, 11, 12, 13, 14, 15));
}
/// Rounds to nearest, ties to even; beyond the range to infinity.
template <int B>
RESNET_INLINE void store_half(Half* to, const Vec<B>& value) {
  *reinterpret_cast<__m256h_u*>(to) = _mm512_cvtxps_ph((__m512)value);
}

#else  // the emulation: values lie in registers as f32, each exactly a half

/// All ones in the lanes whose number, an int32, is negative.
template <int B>
RESNET_INLINE Bits<B> negative(const Bits<B>& lanes) {
  return (Bits<B>)((typename BitsOf<B>::number)lanes >> 31);
}

/// The half in the low 16 bits of each lane (the others zero) as f32.
template <int B>
RESNET_INLINE Vec<B> widen(const Bits<B>& half) {
  const Bits<B> sign = (half & 0x8000u) << 16, magnitude = (half & 0x7fffu) << 13;
  // A larger bias of the exponent; subnormal halves are subnormal floats before, and normal after.
  const Bits<B> scaled = (Bits<B>)((Vec<B>)magnitude * 0x1p112f);
  const Bits<B> special = negative<B>(magnitude + (0x80000000u - 0x0f800000u));  // infinity or NaN
  return (Vec<B>)(scaled | (special & 0x7f800000u) | sign);
}

/// f32 rounded to the nearest half, ties to even; beyond the range to infinity.
template <int B>
RESNET_INLINE Vec<B> round_to_half(const Vec<B>& value) {
  const Bits<B> bits = (Bits<B>)value, magnitude = bits & 0x7fffffffu;
  const Bits<B> normal = (magnitude + 0xfffu + ((magnitude >> 13) & 1u)) & ~0x1fffu;
  const Bits<B> subnormal = (Bits<B>)(((Vec<B>)magnitude + 0.5f) - 0.5f);  // 1/2's last place is 2^-24, a half's least
  const Bits<B> tiny = negative<B>(magnitude - 0x38800000u);               // below 2^-14
  Bits<B> result = (subnormal & tiny) | (normal & ~tiny);
  const Bits<B> over = negative<B>(0x477fffffu - result);
  result = (result & ~over) | (over & 0x7f800000u);
  const Bits<B> nan = negative<B>(0x7f800000u - magnitude);
  return (Vec<B>)(result | (nan & 0x7fc00000u) | (bits & 0x80000000u));
}

template <int B>
struct HalfPairs {
  Vec<B> first, second;
};

template <int B>
RESNET_INLINE HalfPairs<B> half_zero() {
  return {zero<B>(), zero<B>()};
}
template <int B>
RESNET_INLINE HalfPairs<B> half_load(const Half* p) {
  const Bits<B> pairs = *reinterpret_cast<const typename BitsOf<B>::unaligned*>(p);
  return {widen<B>(pairs & 0xffffu), widen<B>(pairs >> 16)};
}
template <int B>
RESNET_INLINE HalfPairs<B> half_broadcast(const Half* p) {
  const Bits<B> first = p[0] - Bits<B>{}, second = p[1] - Bits<B>{};
  return {widen<B>(first), widen<B>(second)};
}
/// The product of two halves is exact in f32. Its sum with a third is not: it is rounded to odd (Boldo & Melquiond
/// 2008), so that rounding it again, to half, gives what one rounding would have.
template <int B>
RESNET_INLINE Vec<B> fma_in_half(const Vec<B>& a, const Vec<B>& b, const Vec<B>& c) {
  const Vec<B> product = a * b;
  const Vec<B> sum = product + c;
  const Vec<B> part = sum - product;
  const Vec<B> error = (product - (sum - part)) + (c - part);  // Knuth's two-sum
  const Bits<B> s = (Bits<B>)sum, e = (Bits<B>)error, size = e & 0x7fffffffu;
  const Bits<B> inexact = negative<B>(0u - size) & ~negative<B>(0x7f7fffffu - size);  // neither zero nor NaN
  const Bits<B> even = (s & 1u) - 1u;
  const Bits<B> towards = negative<B>(e ^ s) | 1u;  // a step away from zero, or -1: towards it
  return round_to_half<B>((Vec<B>)(s + (towards & inexact & even)));
}
template <int B>
RESNET_INLINE HalfPairs<B> half_fma(const HalfPairs<B>& a, const HalfPairs<B>& b, const HalfPairs<B>& sum) {
  return {fma_in_half<B>(a.first, b.first, sum.first), fma_in_half<B>(a.second, b.second, sum.second)};
}
template <int B, int... I>
RESNET_INLINE void interleave(const Vec<B>& even, const Vec<B>& odd, Vec<B>& low, Vec<B>& high,
                              std::integer_sequence<int, I...>) {
  low = __builtin_shufflevector(even, odd, (I / 2 + (I % 2) * B)...);
  high = __builtin_shufflevector(even, odd, (B / 2 + I / 2 + (I % 2) * B)...);
}
template <int B>
RESNET_INLINE void half_pair_sums(const HalfPairs<B>& even, const HalfPairs<B>& odd, Vec<B>& low, Vec<B>& high) {
  // Two significands of 11 bits: f32 loses bits only where rounding to half again does not see it (24 >= 2 * 11 + 2).
  interleave<B>(round_to_half<B>(even.first + even.second), round_to_half<B>(odd.first + odd.second), low, high,
                std::make_integer_sequence<int, B>());
}
template <int B>
RESNET_INLINE void store_half(Half* to, const Vec<B>& value) {
  const Bits<B> bits = (Bits<B>)round_to_half<B>(value), magnitude = bits & 0x7fffffffu;
  const Bits<B> finite = (Bits<B>)((Vec<B>)magnitude * 0x1p-112f) >> 13;  // the half's exponent, subnormals too
  const Bits<B> infinite = negative<B>(0x7f7fffffu - magnitude), nan = negative<B>(0x7f800000u - magnitude);
  const Bits<B> half = (finite & ~infinite) | (infinite & 0x7c00u) | (nan & 0x200u) | ((bits & 0x80000000u) >> 16);
  *reinterpret_cast<typename BitsOf<B>::halves*>(to) = __builtin_convertvector(half, typename BitsOf<B>::halves);
}

#endif

}  // namespace resnet::simd::RESNET_ISA
