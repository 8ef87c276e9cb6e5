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
/// sums += four bytes, or two words, of a pixel times as many of 16 columns.
template <bool kBytes>
RESNET_INLINE RESNET_TARGET_VNNI void vnni_add(__m512i& sums, __m512i pixel, __m512i columns) {
  sums = kBytes ? _mm512_dpbusd_epi32(sums, pixel, columns) : _mm512_dpwssd_epi32(sums, pixel, columns);
}

/// Where the taps of a tile's rows lie, row by row `stride` bytes apart: `pieces` pieces of `groups` groups of four
/// bytes or two words, `gap` bytes from the end of one to the next.
struct VnniRows {
  int64_t stride, groups, pieces = 1, gap = 0;
};

/// kTileRows rows times kSlivers slivers; out(row, its sums) has the results. After every `part` groups of a piece, and
/// after the rest of one, meanwhile() is called. Two slivers and half the rows take 10 loads where one sliver and all
/// rows take 14 (a loop of either alone starts 87 and 81 % of the multiplications that it could).
template <bool kBytes, int kTileRows, int kSlivers, class Out, class Meanwhile>
RESNET_TARGET_VNNI void vnni_tile(const uint8_t* a, const VnniRows& rows, const void* const (&slivers)[kSlivers],
                                  const Out& out, int64_t part, const Meanwhile& meanwhile) {
  constexpr int kRegisters = 2 * kSlivers;
  const uint8_t* b[kSlivers];
  for (int s = 0; s < kSlivers; ++s) b[s] = static_cast<const uint8_t*>(slivers[s]);
  __m512i sum[kTileRows][kRegisters];
  RESNET_UNROLL
  for (int i = 0; i < kTileRows; ++i) {
    RESNET_UNROLL
    for (int j = 0; j < kRegisters; ++j) sum[i][j] = _mm512_setzero_si512();
  }
  // A second pointer, as general registers do not suffice for the distances of all rows from the first.
  constexpr int kNear = 6;
  const int64_t stride = rows.stride;
  int64_t distance = kNear * stride;
  asm volatile("" : "+r"(distance));  // the compiler would add up the distances again
  const uint8_t* far = a + distance;
  for (int64_t piece = 0; piece < rows.pieces; ++piece, a += rows.gap, far += rows.gap) {
    for (int64_t left = rows.groups; left > 0; left -= part) {
      for (int64_t g = smaller(left, part); g > 0; --g, a += 4, far += 4) {
        __m512i column[kRegisters];
        RESNET_UNROLL
        for (int j = 0; j < kRegisters; ++j) column[j] = _mm512_loadu_si512(b[j / 2] + j % 2 * 64);
        RESNET_UNROLL
        for (int s = 0; s < kSlivers; ++s) b[s] += 4 * kColumns;
        RESNET_UNROLL
        for (int i = 0; i < kTileRows; ++i) {
          const uint8_t* taps = i < kNear ? a + i * stride : far + (i - kNear) * stride;
          const __m512i pixel = _mm512_set1_epi32(static_cast<int>(*reinterpret_cast<const Word32*>(taps)));
          RESNET_UNROLL
          for (int j = 0; j < kRegisters; ++j) vnni_add<kBytes>(sum[i][j], pixel, column[j]);
        }
      }
      meanwhile();
    }
  }
  RESNET_UNROLL
  for (int i = 0; i < kTileRows; ++i) out(i, sum[i]);
}

/// kRows rows times a sliver, and times two; out(row, its sums).
template <bool kBytes, class Out>
RESNET_TARGET_VNNI void vnni_multiply(const void* a, const VnniRows& rows, const void* b, const Out& out) {
  vnni_tile<kBytes, kRows, 1>(static_cast<const uint8_t*>(a), rows, {b}, out, rows.groups, [] {});
}
template <bool kBytes, class Out>
RESNET_TARGET_VNNI void vnni_multiply(const void* a, const VnniRows& rows, const void* b0, const void* b1,
                                      const Out& out) {
  constexpr int kHalf = kRows / 2;
  const auto* pixels = static_cast<const uint8_t*>(a);
  for (int first = 0; first < kRows; first += kHalf) {
    const auto half = [&](int row, const auto& sums) { out(first + row, sums); };
    vnni_tile<kBytes, kHalf, 2>(pixels + first * rows.stride, rows, {b0, b1}, half, rows.groups, [] {});
  }
}

/// Sums into memory, sliver by sliver, [kRows][kColumns] each.
struct VnniStore {
  uint32_t* c[2];
  template <int kRegisters>
  RESNET_INLINE void operator()(int row, const __m512i (&sums)[kRegisters]) const {
    RESNET_UNROLL
    for (int j = 0; j < kRegisters; ++j) _mm512_storeu_si512(c[j / 2] + row * kColumns + j % 2 * kLanes, sums[j]);
  }
};
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
    if (has_vnni())
      return vnni_multiply<false>(a, {.stride = stride * 2, .groups = groups}, b, VnniStore{{c, nullptr}});
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

#undef RESNET_TILE
#undef RESNET_STORE
#undef RESNET_ZERO
#undef RESNET_TWELVE

}  // namespace
}  // namespace resnet::simd::RESNET_ISA
