#pragma once
// The small matrix products of convolutions in half precision: products of halves, summed in half over at most
// kFlush channels, then in f32.

#include "backends/cpu/simd/ahead.h"
#include "backends/cpu/simd/half_vec.h"

namespace resnet::simd::RESNET_ISA {

template <int B>
struct HalfGemm {
  static constexpr int kPanel = 2 * B;
  /// Rows per micro kernel: with 2 vectors of weights 24 of AVX-512's 32 registers are sums.
  static constexpr int kRows = B == 16 ? 12 : 6;
  /// Channels between two flushes to f32: each sum in half, of every other channel, has 64 terms.
  static constexpr int kFlush = 128;
  static constexpr int64_t kFlushBlocks = kFlush / B;
  /// Bound on |v| that leaves the sums in half in range for weights up to 1: 128 * 256 < 65504.
  static constexpr int kLargestExponent = 8;

  /// p[j][row] (+)= scale * sum over `blocks` <= kFlushBlocks blocks and channels c of v[block][row][c] * u[..][c][k],
  /// for R <= kRows rows. v is [block][kRows][B]. u is [block][c / 2][k % 2][k / 2][c % 2] for a panel's 2B channels k,
  /// p [k / B] vectors of B, p_pitch apart. Never inlined: GCC would run out of registers for the sums
  /// (tests/backends/codegen_test.py).
  template <int R>
  static __attribute__((noinline)) void product(const Half* v, int64_t blocks, const Half* u, float scale, float* p,
                                                int64_t p_pitch, bool accumulate, Ahead& ahead) {
    HalfPairs<B> sum[R][2];
    RESNET_UNROLL
    for (int i = 0; i < R; ++i) sum[i][0] = sum[i][1] = half_zero<B>();
    for (; blocks > 0; --blocks, v += kRows * B, u += B * kPanel) {
      ahead.fetch();
      for (int c = 0; c < B; c += 2) {
        const HalfPairs<B> even = half_load<B>(u + c * kPanel), odd = half_load<B>(u + c * kPanel + kPanel);
        RESNET_UNROLL
        for (int i = 0; i < R; ++i) {
          const HalfPairs<B> value = half_broadcast<B>(v + i * B + c);
          sum[i][0] = half_fma<B>(value, even, sum[i][0]);
          sum[i][1] = half_fma<B>(value, odd, sum[i][1]);
        }
      }
    }
    const Vec<B> unit = splat<B>(scale);
    RESNET_UNROLL
    for (int i = 0; i < R; ++i) {
      Vec<B> low, high;
      half_pair_sums<B>(sum[i][0], sum[i][1], low, high);
      float* to = p + i * B;
      if (accumulate) {
        low = load<B>(to) + unit * low;
        high = load<B>(to + p_pitch) + unit * high;
      } else {
        low *= unit;
        high *= unit;
      }
      store<B>(to, low);
      store<B>(to + p_pitch, high);
    }
  }

  template <int R>
  static void product_tail(int64_t rows, const Half* v, int64_t blocks, const Half* u, float scale, float* p,
                           int64_t p_pitch, bool accumulate, Ahead& ahead) {
    if constexpr (R > 0) {
      if (rows == R) return product<R>(v, blocks, u, scale, p, p_pitch, accumulate, ahead);
      product_tail<R - 1>(rows, v, blocks, u, scale, p, p_pitch, accumulate, ahead);
    }
  }

  /// The above for any number of rows, in runs of kRows that lie `run_pitch` apart in v and have a scale each.
  /// Meanwhile `ahead` is fetched.
  static void product_panel(int64_t rows, const Half* v, int64_t run_pitch, int64_t blocks, const Half* u,
                            const float* scales, float* p, int64_t p_pitch, bool accumulate, Ahead ahead) {
    for (; rows >= kRows; rows -= kRows, v += run_pitch, p += kRows * B) {
      product<kRows>(v, blocks, u, *scales++, p, p_pitch, accumulate, ahead);
    }
    if (rows > 0) product_tail<kRows - 1>(rows, v, blocks, u, *scales, p, p_pitch, accumulate, ahead);
  }
};

}  // namespace resnet::simd::RESNET_ISA
