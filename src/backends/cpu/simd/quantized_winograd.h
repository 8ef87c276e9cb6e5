#pragma once
// Winograd's F(MxM, 3x3) of 8-bit convolutions, M = 2 or 4, in whole numbers and exact (Lavin and Gray 2015,
// arXiv:1509.09308, Sec. 4.1 and 4.3): G is scaled so that its entries are whole, what was transformed fits 16 bits,
// and the products are summed modulo 2^32. The inverse transform gives a multiple of the sum, modulo 2^32, and that
// gives the sum back wherever it is small enough: always for M = 2 (up to kMostChannels), for M = 4 with the weights of
// `exact()`.

#include "backends/cpu/simd/quantized_epilogue.h"

namespace resnet::simd::RESNET_ISA {
namespace {

/// B^T, G and A^T, applied to vectors or single numbers.
template <int M>
struct IntegerTransform;

template <>
struct IntegerTransform<2> {
  /// Up to 4 * 255 in two dimensions.
  template <class T>
  static RESNET_INLINE void input(const T (&d)[4], T (&v)[4]) {
    v[0] = d[0] - d[2];
    v[1] = d[1] + d[2];
    v[2] = d[2] - d[1];
    v[3] = d[1] - d[3];
  }
  /// By 2 G, up to 9 * 128.
  static void filter(const int (&g)[3], int (&u)[4]) {
    u[0] = 2 * g[0];
    u[1] = g[0] + g[1] + g[2];
    u[2] = g[0] - g[1] + g[2];
    u[3] = 2 * g[2];
  }
  static RESNET_INLINE void output(const U32 (&m)[4], U32 (&y)[2]) {
    y[0] = m[0] + m[1] + m[2];
    y[1] = m[1] - m[2] - m[3];
  }
  /// Of 4 times the sum.
  static RESNET_INLINE I32 sum(U32 four) { return (I32)four >> 2; }
  static bool exact(int64_t /*largest_sum*/) { return true; }
};

template <>
struct IntegerTransform<4> {
  /// Up to 68 * 255 in two dimensions.
  template <class T>
  static RESNET_INLINE void input(const T (&d)[6], T (&v)[6]) {
    const T d2 = d[2] * 4, a = d[4] - d2, b = d[3] - d[1] * 4;
    const T c = d[4] - d[2], e = (d[3] - d[1]) * 2;
    v[0] = d[0] * 4 - d2 - d[2] + d[4];
    v[1] = a + b;
    v[2] = a - b;
    v[3] = c + e;
    v[4] = c - e;
    v[5] = d[5] - d[3] * 4 - b;  // 4 d1 - 5 d3 + d5
  }
  /// By 24 G, whose first and last row are halved: up to 144 * 128.
  static void filter(const int (&g)[3], int (&u)[6]) {
    u[0] = 3 * g[0];
    u[1] = -4 * (g[0] + g[1] + g[2]);
    u[2] = -4 * (g[0] - g[1] + g[2]);
    u[3] = g[0] + 2 * g[1] + 4 * g[2];
    u[4] = g[0] - 2 * g[1] + 4 * g[2];
    u[5] = 12 * g[2];
  }
  static RESNET_INLINE void output(const U32 (&m)[6], U32 (&y)[4]) {
    const U32 s = m[1] + m[2], d = m[1] - m[2], s2 = m[3] + m[4], d2 = m[3] - m[4];
    y[0] = m[0] * 2 + s + s2;
    y[1] = d + d2 * 2;
    y[2] = s + s2 * 4;
    y[3] = d + d2 * 8 + m[5] * 2;
  }
  /// Of 576 times the sum: 64 is shifted out, 9 divided by as its inverse modulo 2^26, which leaves 26 bits.
  static RESNET_INLINE I32 sum(U32 v) {
    constexpr uint32_t kInverse = 0x38E38E39;
    static_assert(kInverse * 9 == 1);
    return (I32)((v >> 6) * (kInverse << 6)) >> 6;
  }
  static bool exact(int64_t largest_sum) { return largest_sum < int64_t{1} << 25; }
};

/// The convolutions that it can do, as far as sizes go.
bool winograd_can(const QuantizedConvSize& p) {
  constexpr int64_t kMostChannels = 1 << 10;  // 4 * 255 * 128 * 9 * C < 2^31
  return p.R == 3 && p.S == 3 && p.stride_h == 1 && p.stride_w == 1 && p.dilation_h == 1 && p.dilation_w == 1 &&
         p.groups == 1 && p.C <= kMostChannels;
}

template <int M>
struct Winograd {
  typedef IntegerTransform<M> Transform;
  static constexpr int N = M + 2;
  static constexpr int kPositions = N * N;

  const QuantizedConvSize& p;
  int64_t pairs, slivers, tiles_h, tiles_w, tiles, stride;
  int64_t panel;  ///< tiles that are transformed together
  int64_t group;  ///< slivers whose sums are kept together

  explicit Winograd(const QuantizedConvSize& size)
      : p(size),
        pairs(ceil_div(size.C, 2)),
        slivers(ceil_div(size.K, kColumns)),
        tiles_h(ceil_div(size.Ho, M)),
        tiles_w(ceil_div(size.Wo, M)),
        tiles(size.N * tiles_h * tiles_w),
        stride(panel_stride<Words>(pairs * 2)) {
    // Filters that do not fit the second cache come from the third once for each panel: larger panels, and sums of so
    // many slivers that a position's pixels, which are in the first cache, meet several of them. With VNNI these are
    // pairs, and half as large a panel is faster.
    const bool streamed = packed_bytes() > kMostFilters;
    const int64_t streamed_panel = has_vnni() ? kStreamedPanel / 2 : kStreamedPanel;
    panel = panel_rows(streamed ? streamed_panel : kPanel, kPositions * stride * 2, 96, tiles, p.threads);
    int64_t fit = streamed ? kSums / (kPositions * sums_stride() * 4) : 1;
    if (has_vnni()) fit = larger(2, fit / 2 * 2);
    group = smaller(slivers, larger(1, fit));
  }
  static constexpr size_t kMostFilters = 512 << 10;
  static constexpr int64_t kPanel = 256 << 10, kStreamedPanel = 1 << 20, kSums = 512 << 10;

  /// Whether these weights' sums come out right.
  static bool exact(const QuantizedConvSize& p, const int8_t* w) {
    const int64_t taps = 9 * p.C;
    int64_t largest = 0;
    for (int64_t k = 0; k < p.K; ++k, w += taps) {
      int64_t above = 0, below = 0;
      for (int64_t i = 0; i < taps; ++i) (w[i] > 0 ? above : below) += w[i];
      largest = larger(largest, 255 * larger(above, -below));
    }
    return Transform::exact(largest);
  }

  int64_t sliver_elements() const { return pairs * 2 * kColumns; }  // of one of the products
  size_t packed_bytes() const {
    return static_cast<size_t>(slivers * kPositions * sliver_elements()) * sizeof(int16_t);
  }
  int64_t position_stride() const { return (panel + kRows) * stride; }
  int64_t sums_stride() const { return (panel + kRows) * kColumns + 16; }
  int64_t pixel_bytes() const { return round_up(kPositions * position_stride() * 2, 64); }
  size_t thread_bytes() const {
    return static_cast<size_t>(pixel_bytes() + round_up(group * kPositions * sums_stride() * 4, 64));
  }
  size_t scratch_bytes() const { return static_cast<size_t>(p.threads) * thread_bytes(); }

  void pack(const int8_t* w, int16_t* packed) const {
#pragma omp parallel for schedule(static) num_threads(p.threads)
    for (int64_t sliver = 0; sliver < slivers; ++sliver) {
      int16_t* to = packed + sliver * kPositions * sliver_elements();
      const int64_t first = sliver * kColumns, filters = smaller(kColumns, p.K - first);
      for (int64_t c = 0; c < 2 * pairs; ++c) {  // all filters of a channel together: their words share lines
        for (int64_t k = 0; k < kColumns; ++k) {
          int u[N][N] = {};
          if (c < p.C && k < filters) transform_filter(w + ((first + k) * p.C + c) * 9, u);
          for (int i = 0; i < kPositions; ++i)
            to[i * sliver_elements() + (c / 2 * kColumns + k) * 2 + c % 2] = static_cast<int16_t>(u[i / N][i % N]);
        }
      }
    }
  }

  /// G g G^T, scaled.
  static void transform_filter(const int8_t* g, int (&u)[N][N]) {
    int columns[N][3];
    for (int j = 0; j < 3; ++j) {
      const int column[3] = {g[j], g[3 + j], g[6 + j]};
      int transformed[N];
      Transform::filter(column, transformed);
      for (int i = 0; i < N; ++i) columns[i][j] = transformed[i];
    }
    for (int i = 0; i < N; ++i) Transform::filter(columns[i], u[i]);
  }

  struct Place {
    int64_t n, h, w;  ///< the tile's first output pixel
  };
  Place place(int64_t tile) const {
    return {tile / tiles_w / tiles_h, tile / tiles_w % tiles_h * M, tile % tiles_w * M};
  }

  /// B^T d B, which may wrap on its way.
  template <class T>
  static RESNET_INLINE void transform(const T (&d)[N][N], T (&v)[N][N]) {
    T t[N][N];
    RESNET_UNROLL
    for (int j = 0; j < N; ++j) {
      T from[N], to[N];
      RESNET_UNROLL
      for (int i = 0; i < N; ++i) from[i] = d[i][j];
      Transform::input(from, to);
      RESNET_UNROLL
      for (int i = 0; i < N; ++i) t[i][j] = to[i];
    }
    RESNET_UNROLL
    for (int i = 0; i < N; ++i) Transform::input(t[i], v[i]);
  }

  /// One tile's pixels into the panels of all positions, at `to` in the first.
  void transform_tile(const QuantizedConvArgs& args, int64_t tile, int16_t* to) const {
    const Place at = place(tile);
    const uint8_t* pixels[N][N];
    for (int64_t i = 0; i < N; ++i) {
      const int64_t h = at.h - p.pad_h + i;
      const bool in_rows = h >= 0 && h < p.H;
      const uint8_t* row = args.x + (at.n * p.H + h) * p.W * p.C;
      for (int64_t j = 0; j < N; ++j) {
        const int64_t w = at.w - p.pad_w + j;
        pixels[i][j] = in_rows && w >= 0 && w < p.W ? row + w * p.C : args.padding;
      }
    }
    int64_t c = 0;
#if defined(__AVX2__)
    typedef int16_t V16 __attribute__((vector_size(32)));
    for (; c + 16 <= p.C; c += 16) {
      V16 d[N][N], v[N][N];
      RESNET_UNROLL
      for (int i = 0; i < N; ++i) {
        RESNET_UNROLL
        for (int j = 0; j < N; ++j)
          d[i][j] = (V16)_mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(pixels[i][j] + c)));
      }
      transform(d, v);
      RESNET_UNROLL
      for (int i = 0; i < kPositions; ++i)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i * position_stride() + c), (__m256i)v[i / N][i % N]);
    }
#endif
    for (; c < p.C; ++c) {
      int d[N][N], v[N][N];
      for (int i = 0; i < kPositions; ++i) d[i / N][i % N] = pixels[i / N][i % N][c];
      transform(d, v);
      for (int i = 0; i < kPositions; ++i) to[i * position_stride() + c] = static_cast<int16_t>(v[i / N][i % N]);
    }
    if (p.C % 2 != 0) {
      for (int i = 0; i < kPositions; ++i) to[i * position_stride() + p.C] = 0;
    }
  }

  template <Residual kResidual>
  void run(const QuantizedConvArgs& args) const {
    const int64_t panels = ceil_div(tiles, panel);
#pragma omp parallel num_threads(p.threads)
    {
      char* mine = static_cast<char*>(args.scratch) + static_cast<size_t>(omp_get_thread_num()) * thread_bytes();
      auto* a = reinterpret_cast<int16_t*>(mine);
      auto* sums = reinterpret_cast<uint32_t*>(mine + pixel_bytes());
      const Range part = share(panels, omp_get_thread_num(), omp_get_num_threads());
      for (int64_t i = part.first; i < part.last; ++i) {
        const int64_t first = i * panel, count = smaller(panel, tiles - first);
        for (int64_t tile = 0; tile < count; ++tile) transform_tile(args, first + tile, a + tile * stride);
        for (int64_t sliver = 0; sliver < slivers; sliver += group)
          multiply<kResidual>(args, a, sums, first, count, {sliver, smaller(slivers, sliver + group)});
      }
    }
  }

  /// The filters of `part`, whole slivers, for `count` tiles from `first` on.
  template <Residual kResidual>
  void multiply(const QuantizedConvArgs& args, const int16_t* a, uint32_t* sums, int64_t first, int64_t count,
                const Range& part) const {
    const auto* packed = static_cast<const int16_t*>(args.packed);
    const auto sums_of = [&](int64_t sliver, int64_t position) {
      return sums + ((sliver - part.first) * kPositions + position) * sums_stride();
    };
    for (int64_t position = 0; position < kPositions; ++position) {
      const int16_t* rows = a + position * position_stride();
      const auto weights = [&](int64_t sliver) {
        return packed + (sliver * kPositions + position) * sliver_elements();
      };
      int64_t sliver = part.first;
#if defined(RESNET_AVX512)
      for (; has_vnni() && sliver + 1 < part.last; sliver += 2) {
        for (int64_t row = 0; row < count; row += kRows)
          vnni_multiply<false>(
              rows + row * stride, {.stride = stride * 2, .groups = pairs}, weights(sliver), weights(sliver + 1),
              VnniStore{{sums_of(sliver, position) + row * kColumns, sums_of(sliver + 1, position) + row * kColumns}});
      }
#endif
      for (; sliver < part.last; ++sliver) {
        for (int64_t row = 0; row < count; row += kRows)
          Words::tile(rows + row * stride, stride, weights(sliver), pairs, sums_of(sliver, position) + row * kColumns);
      }
    }
    for (int64_t sliver = part.first; sliver < part.last; ++sliver) {
      const int64_t k = sliver * kColumns;
      const Epilogue<kResidual> epilogue(args, p.K, k, smaller(kColumns, p.K - k));
      for (int64_t tile = 0; tile < count; ++tile)
        write_tile(epilogue, sums_of(sliver, 0) + tile * kColumns, first + tile);
    }
  }

  /// A^T m A of one tile and what follows it.
  template <Residual kResidual>
  void write_tile(const Epilogue<kResidual>& epilogue, const uint32_t* sums, int64_t tile) const {
    I32 out[M][M][2];  // row, column, half of the sliver
    RESNET_UNROLL
    for (int half = 0; half < 2; ++half) {
      U32 t[M][N];
      RESNET_UNROLL
      for (int j = 0; j < N; ++j) {
        U32 m[N], y[M];
        RESNET_UNROLL
        for (int i = 0; i < N; ++i) m[i] = load_u32(sums + (i * N + j) * sums_stride() + half * kLanes);
        Transform::output(m, y);
        RESNET_UNROLL
        for (int i = 0; i < M; ++i) t[i][j] = y[i];
      }
      RESNET_UNROLL
      for (int i = 0; i < M; ++i) {
        U32 y[M];
        Transform::output(t[i], y);
        RESNET_UNROLL
        for (int j = 0; j < M; ++j) out[i][j][half] = Transform::sum(y[j]);
      }
    }
    const Place at = place(tile);
    for (int64_t i = 0; i < smaller(M, p.Ho - at.h); ++i) {
      for (int64_t j = 0; j < smaller(M, p.Wo - at.w); ++j)
        epilogue.write(out[i][j][0], out[i][j][1], (at.n * p.Ho + at.h + i) * p.Wo + at.w + j);
    }
  }
};

}  // namespace
}  // namespace resnet::simd::RESNET_ISA
