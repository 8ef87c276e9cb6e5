#pragma once
// The small matrix products between Winograd's transforms, for rows of B channels.

#include "backends/cpu/simd/ahead.h"
#include "backends/cpu/simd/vec.h"

namespace resnet::simd::RESNET_ISA {

template <int B>
struct WinogradGemm {
  using V = Vec<B>;
  static constexpr int kPanel = 2 * B;
  /// Tiles per micro kernel: 6 x 2 accumulators fill AVX2's 16 registers, 12 x 2 most of AVX-512's 32.
  static constexpr int kRows = B == 16 ? 12 : 6;

  /// Partial sums start at zero and are added at the end: long sums of f32 keep more digits in pieces.
  static RESNET_INLINE void put(float* to, const V& sum, bool accumulate) {
    store<B>(to, accumulate ? load<B>(to) + sum : sum);
  }

  /// m[t][k] (+)= sum over `blocks` blocks of v[block][t][c] * u[block * B + c][k], for R <= kRows tiles
  /// and the first W of a panel's two vectors. v is [block][kRows][B], so that all a micro kernel
  /// reads is contiguous: no two of its lines share an L1 set. m's rows lie `m_pitch` floats apart.
  template <int R, int W>
  static void product(const float* v, int64_t blocks, const float* u, float* m, int64_t m_pitch, bool accumulate,
                      Ahead& ahead) {
    V sum[R][W];
    RESNET_UNROLL
    for (int i = 0; i < R; ++i) {
      RESNET_UNROLL
      for (int j = 0; j < W; ++j) sum[i][j] = zero<B>();
    }
    for (int64_t block = 0; block < blocks; ++block, v += kRows * B, u += B * kPanel) {
      ahead.fetch();
      for (int c = 0; c < B; ++c) {
        V weight[W];
        RESNET_UNROLL
        for (int j = 0; j < W; ++j) weight[j] = load<B>(u + c * kPanel + j * B);
        RESNET_UNROLL
        for (int i = 0; i < R; ++i) {
          const V value = splat<B>(v[i * B + c]);
          RESNET_UNROLL
          for (int j = 0; j < W; ++j) sum[i][j] += value * weight[j];
        }
      }
    }
    RESNET_UNROLL
    for (int i = 0; i < R; ++i) {
      RESNET_UNROLL
      for (int j = 0; j < W; ++j) put(m + j * m_pitch + i * B, sum[i][j], accumulate);
    }
  }

  template <int R, int W>
  static void product_tail(int64_t rows, const float* v, int64_t blocks, const float* u, float* m, int64_t m_pitch,
                           bool accumulate, Ahead& ahead) {
    if constexpr (R > 0) {
      if (rows == R) return product<R, W>(v, blocks, u, m, m_pitch, accumulate, ahead);
      product_tail<R - 1, W>(rows, v, blocks, u, m, m_pitch, accumulate, ahead);
    }
  }

  /// The above for any number of tiles; groups of kRows tiles lie `group_pitch` floats apart in v. Meanwhile `ahead`
  /// is fetched.
  template <int W>
  static void product_panel(int64_t tiles, const float* v, int64_t group_pitch, int64_t blocks, const float* u,
                            float* m, int64_t m_pitch, bool accumulate, Ahead ahead) {
    int64_t t = 0;
    for (; t + kRows <= tiles; t += kRows, v += group_pitch, m += kRows * B) {
      product<kRows, W>(v, blocks, u, m, m_pitch, accumulate, ahead);
    }
    product_tail<kRows - 1, W>(tiles - t, v, blocks, u, m, m_pitch, accumulate, ahead);
  }

  /// du[c][k] (+)= sum over tiles of v[t][c] * z[t][k]: R0 channels from the row at v, then R1 from the
  /// row at next (a group may straddle two channel blocks), W vectors of k whose rows lie `pitch` apart.
  template <int R0, int R1, int W>
  static void outer(const float* v, const float* next, const float* z, int64_t pitch, int64_t tiles, float* du,
                    bool accumulate) {
    V sum[R0 + R1][W];
    RESNET_UNROLL
    for (int i = 0; i < R0 + R1; ++i) {
      RESNET_UNROLL
      for (int j = 0; j < W; ++j) sum[i][j] = zero<B>();
    }
    for (int64_t t = 0; t < tiles; ++t, v += B, next += B, z += B) {
      V gradient[W];
      RESNET_UNROLL
      for (int j = 0; j < W; ++j) gradient[j] = load<B>(z + j * pitch);
      RESNET_UNROLL
      for (int i = 0; i < R0 + R1; ++i) {
        const V value = splat<B>(i < R0 ? v[i] : next[i - R0]);
        RESNET_UNROLL
        for (int j = 0; j < W; ++j) sum[i][j] += value * gradient[j];
      }
    }
    RESNET_UNROLL
    for (int i = 0; i < R0 + R1; ++i) {
      RESNET_UNROLL
      for (int j = 0; j < W; ++j) put(du + i * kPanel + j * B, sum[i][j], accumulate);
    }
  }

  /// The above for all of `blocks` channel blocks; du rows are kPanel floats.
  template <int W>
  static void outer_panel(int64_t blocks, const float* v, int64_t pitch, const float* z, int64_t tiles, float* du,
                          bool accumulate) {
    if constexpr (B == 16) {
      for (int64_t c = 0; c < blocks * B; c += 8) {
        const float* row = v + c / B * pitch + c % B;
        outer<8, 0, W>(row, row, z, pitch, tiles, du + c * kPanel, accumulate);
      }
    } else {
      const int64_t channels = blocks * B;
      int64_t c = 0;
      for (; c + 6 <= channels; c += 6) {
        const float* row = v + c / B * pitch + c % B;
        const float* next = v + (c / B + 1) * pitch;
        float* out = du + c * kPanel;
        switch (c % B) {
          case 4: outer<4, 2, W>(row, next, z, pitch, tiles, out, accumulate); break;
          case 6: outer<2, 4, W>(row, next, z, pitch, tiles, out, accumulate); break;
          default: outer<6, 0, W>(row, row, z, pitch, tiles, out, accumulate); break;
        }
      }
      const float* row = v + c / B * pitch + c % B;
      if (channels - c == 2) outer<2, 0, W>(row, row, z, pitch, tiles, du + c * kPanel, accumulate);
      if (channels - c == 4) outer<4, 0, W>(row, row, z, pitch, tiles, du + c * kPanel, accumulate);
    }
  }
};

}  // namespace resnet::simd::RESNET_ISA
