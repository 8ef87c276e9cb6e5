#pragma once
// The register tiles of the 8-bit convolutions: kRows pixels times kColumns filters. Rows and columns hold groups of
// taps that one instruction multiplies; a kind of tile says how many and of which type, and how bytes become them.

#include "backends/cpu/simd/quantized_vec.h"

/// Two registers of sums a row are held throughout. GCC 12 and clang 14 keep arrays of that many in memory where the
/// products need registers besides, so with 16 registers the loop is written out (1.05 to 1.15 times as fast, a whole
/// convolution; the multipliers start 95 % of what they could, not 70).
#if defined(__x86_64__) && defined(__AVX2__) && !defined(RESNET_AVX512)
#define RESNET_QUANTIZED_ASSEMBLY 1
#endif

namespace resnet::simd::RESNET_ISA {
namespace {

#ifdef RESNET_QUANTIZED_ASSEMBLY
static_assert(kRows == 6 && kLanes == 8);
#define RESNET_TWELVE(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define RESNET_ZERO(SUM) "vpxor %%ymm" #SUM ", %%ymm" #SUM ", %%ymm" #SUM "\n\t"
#define RESNET_STORE(SUM) "vmovdqu %%ymm" #SUM ", " #SUM "*32(%[c])\n\t"

/// c = the sums over `groups` groups. BEGIN and COLUMNS set ymm14 and ymm15; ROW(pixel, its sum of the first columns,
/// of the second) may use ymm12 and ymm13.
#define RESNET_TILE(BEGIN, COLUMNS, ROW) \
  asm volatile(RESNET_TWELVE(RESNET_ZERO) BEGIN                                                                   \
               ".p2align 5\n"                                                                                     \
               "1:\n\t" COLUMNS                                                                                   \
               ROW("(%[a])", "%%ymm0", "%%ymm1")                                                                  \
               ROW("(%[a],%[stride])", "%%ymm2", "%%ymm3")                                                        \
               ROW("(%[a],%[stride],2)", "%%ymm4", "%%ymm5")                                                      \
               ROW("(%[fourth])", "%%ymm6", "%%ymm7")                                                             \
               ROW("(%[fourth],%[stride])", "%%ymm8", "%%ymm9")                                                   \
               ROW("(%[fourth],%[stride],2)", "%%ymm10", "%%ymm11")                                               \
               "add $4, %[a]\n\t"                                                                                 \
               "add $4, %[fourth]\n\t"                                                                            \
               "add $64, %[b]\n\t"                                                                                \
               "dec %[groups]\n\t"                                                                                \
               "jnz 1b\n\t" RESNET_TWELVE(RESNET_STORE)                                                           \
               : [a] "+&r"(a), [fourth] "+&r"(fourth), [b] "+&r"(b), [groups] "+&r"(groups)                           \
               : [stride] "r"(stride * static_cast<int64_t>(sizeof(Pixel))), [c] "r"(c)                           \
               : "memory", "cc", "ymm0", "ymm1", "ymm2", "ymm3", "ymm4", "ymm5", "ymm6", "ymm7", "ymm8", "ymm9",  \
                 "ymm10", "ymm11", "ymm12", "ymm13", "ymm14", "ymm15")
#endif

/// Products of bytes, or of 16-bit pairs, that are added to 32 bits by one instruction.
bool has_vnni() {
#if defined(RESNET_AVX512) && defined(RESNET_EMULATE_AVX512)
  return true;
#elif defined(RESNET_AVX512)
  return __builtin_cpu_supports("avx512vnni");
#else
  return false;
#endif
}

#if defined(RESNET_AVX512)
/// Groups of four bytes, or of two words: four bytes of a row, `stride_bytes` apart, and four of each column.
template <bool kBytes>
RESNET_TARGET_VNNI void vnni_tile(const void* a, int64_t stride_bytes, const void* b, int64_t groups, uint32_t* c) {
  const auto* pixels = static_cast<const uint8_t*>(a);
  const auto* columns = static_cast<const uint8_t*>(b);
  __m512i sum[kRows][2];
  for (int i = 0; i < kRows; ++i) sum[i][0] = sum[i][1] = _mm512_setzero_si512();
  for (int64_t g = 0; g < groups; ++g, pixels += 4, columns += 4 * kColumns) {
    const __m512i b0 = _mm512_loadu_si512(columns), b1 = _mm512_loadu_si512(columns + 4 * kLanes);
    RESNET_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const __m512i pixel =
          _mm512_set1_epi32(static_cast<int>(*reinterpret_cast<const Word32*>(pixels + i * stride_bytes)));
      if constexpr (kBytes) {
        sum[i][0] = _mm512_dpbusd_epi32(sum[i][0], pixel, b0);
        sum[i][1] = _mm512_dpbusd_epi32(sum[i][1], pixel, b1);
      } else {
        sum[i][0] = _mm512_dpwssd_epi32(sum[i][0], pixel, b0);
        sum[i][1] = _mm512_dpwssd_epi32(sum[i][1], pixel, b1);
      }
    }
  }
  RESNET_UNROLL
  for (int i = 0; i < kRows; ++i) {
    _mm512_storeu_si512(c + i * kColumns, sum[i][0]);
    _mm512_storeu_si512(c + i * kColumns + kLanes, sum[i][1]);
  }
}
#endif

/// 16-bit pairs. A row of taps is filled up to whole kSteps; what is there does not matter, as its weights are 0.
struct Words {
  typedef int16_t Pixel;
  typedef int16_t Weight;
  static constexpr int kGroup = 2, kStep = 2;
  static RESNET_INLINE void gather(Pixel* to, const uint8_t* from, int64_t n, int64_t room) {
    widen(to, from, n, room);
  }

  /// c[kRows][kColumns] = a (rows `stride` elements apart) times the sliver b over `groups` groups of taps, at least 1.
  static void tile(const Pixel* a, int64_t stride, const Weight* b, int64_t groups, uint32_t* c) {
#ifdef RESNET_QUANTIZED_ASSEMBLY
    const Pixel* fourth = a + 3 * stride;
#define RESNET_ROW(PIXEL, SUM0, SUM1)      \
  "vpbroadcastd " PIXEL                    \
  ", %%ymm12\n\t"                          \
  "vpmaddwd %%ymm14, %%ymm12, %%ymm13\n\t" \
  "vpmaddwd %%ymm15, %%ymm12, %%ymm12\n\t" \
  "vpaddd %%ymm13, " SUM0 ", " SUM0        \
  "\n\t"                                   \
  "vpaddd %%ymm12, " SUM1 ", " SUM1 "\n\t"
    RESNET_TILE("", "vmovdqu (%[b]), %%ymm14\n\tvmovdqu 32(%[b]), %%ymm15\n\t", RESNET_ROW);
#undef RESNET_ROW
#else
#if defined(RESNET_AVX512)
    if (has_vnni()) return vnni_tile<false>(a, stride * 2, b, groups, c);
#endif
    U32 sum[kRows][2] = {};
    for (int64_t g = 0; g < groups; ++g, a += kGroup, b += kGroup * kColumns) {
      const U32 b0 = load_u32(b), b1 = load_u32(b + kGroup * kLanes);
      RESNET_UNROLL
      for (int i = 0; i < kRows; ++i) {
        const U32 pixel = splat_u32(a + i * stride);
        sum[i][0] = add_pairs(sum[i][0], pixel, b0);
        sum[i][1] = add_pairs(sum[i][1], pixel, b1);
      }
    }
    RESNET_UNROLL
    for (int i = 0; i < kRows; ++i) {
      store_u32(c + i * kColumns, sum[i][0]);
      store_u32(c + i * kColumns + kLanes, sum[i][1]);
    }
#endif
  }
};

#ifdef RESNET_QUANTIZED_ASSEMBLY
/// Bytes, added in pairs at 16 bits and then at 32: a third fewer instructions than words, half the memory.
struct Pairs {
  typedef uint8_t Pixel;
  typedef int8_t Weight;
  static constexpr int kGroup = 4, kStep = 4;
  static RESNET_INLINE void gather(Pixel* to, const uint8_t* from, int64_t n, int64_t room) {
    copy_bytes(to, from, n, room);
  }

  static void tile(const Pixel* a, int64_t stride, const Weight* b, int64_t groups, uint32_t* c) {
    const Pixel* fourth = a + 3 * stride;
#define RESNET_ONES "vpcmpeqw %%ymm15, %%ymm15, %%ymm15\n\tvpsrlw $15, %%ymm15, %%ymm15\n\t"
#define RESNET_ROW(PIXEL, SUM0, SUM1)         \
  "vpbroadcastd " PIXEL                       \
  ", %%ymm12\n\t"                             \
  "vpmaddubsw %%ymm14, %%ymm12, %%ymm13\n\t"  \
  "vpmaddubsw 32(%[b]), %%ymm12, %%ymm12\n\t" \
  "vpmaddwd %%ymm15, %%ymm13, %%ymm13\n\t"    \
  "vpmaddwd %%ymm15, %%ymm12, %%ymm12\n\t"    \
  "vpaddd %%ymm13, " SUM0 ", " SUM0           \
  "\n\t"                                      \
  "vpaddd %%ymm12, " SUM1 ", " SUM1 "\n\t"
    RESNET_TILE(RESNET_ONES, "vmovdqu (%[b]), %%ymm14\n\t", RESNET_ROW);
#undef RESNET_ROW
#undef RESNET_ONES
  }
};
#endif

#if defined(RESNET_AVX512)
/// Four bytes at once.
struct Bytes {
  typedef uint8_t Pixel;
  typedef int8_t Weight;
  static constexpr int kGroup = 4, kStep = 4;
  static RESNET_INLINE void gather(Pixel* to, const uint8_t* from, int64_t n, int64_t room) {
    copy_bytes(to, from, n, room);
  }

  static void tile(const Pixel* a, int64_t stride, const Weight* b, int64_t groups, uint32_t* c) {
    vnni_tile<true>(a, stride, b, groups, c);
  }
};
#endif

#undef RESNET_TILE
#undef RESNET_STORE
#undef RESNET_ZERO
#undef RESNET_TWELVE

}  // namespace
}  // namespace resnet::simd::RESNET_ISA
