#pragma once
// Winograd convolution for blocks of B channels and output tiles of M x M, with N points per axis: N = M + 2 for
// stride 1, 2M + 1 for stride 2 (winograd_transforms.h tells how), whose middle M all meet the same weight.
//
//   forward            for a block of tiles t:        V[xi][c][t] = B^T x B               (all c)
//                      for a group of channels k:     P[xi][k][t] = sum_c V[xi][c][t] U[xi][c][k]
//                                                     y = A^T P A + bias (+ residual) (relu)
//   backward_data      the same on dy, with the weights rotated by 180 degrees and transposed
//   backward_weights   V as in forward, Z[xi][k][t] = A dy A^T, dU[xi][c][k] += sum_t V Z; dw = G^T dU G
//
// Two ways to use threads. Small weights: a thread takes whole blocks of tiles whose V stays in its
// L2, and streams U. Large weights ("team"): all threads work on one large block at a time, share V
// and split the channels, so that U, tens of megabytes, is streamed once per large block, or made piece by piece as it
// is needed and never kept whole. Where threads reach each other's caches slowly, they can stay "apart" with large
// weights too: packed ones are streamed as small ones are, others made by each thread for a large block of its own.
// Sums over c and t run in an order given by the problem alone, so threads never change a bit of the result.
//
// P is [xi][block][t][B], and so are V and Z in backward_weights. For forward, V is cut into the runs
// of tiles one micro kernel takes: [xi][t / kRows][block][t % kRows][B]. The pitch of a row of tiles
// is an odd number of vectors and that of a plane (one xi) an odd number of cache lines, or the N*N
// streams of a transform would fall on the same few cache sets.
// U and dU are [k panel][point of the weights][c][2B]: a panel is the two vectors of k that one micro kernel holds. The
// weights have M + 2 points per axis whatever the stride.

#include <omp.h>

#include <utility>

#include "backends/cpu/simd/half_vec.h"
#include "backends/cpu/simd/vec.h"
#include "backends/cpu/simd/winograd.h"
#include "backends/cpu/simd/winograd_gemm.h"
#include "backends/cpu/simd/winograd_transforms.h"

namespace resnet::simd::RESNET_ISA {

/// A pitch of at least `floats` that is an odd number of 64-byte lines.
RESNET_INLINE int64_t odd_lines(int64_t floats) { return (ceil_div(floats, 16) | 1) * 16; }

/// Cuts the caller's scratch into 64-byte aligned pieces; without a base it only adds up sizes.
struct Arena {
  float* base = nullptr;
  int64_t used = 0;
  RESNET_INLINE float* take(int64_t floats) {
    float* p = base == nullptr ? nullptr : base + used;
    used += round_up(floats, 16);
    return p;
  }
};

/// Blocked activations: [n][blocks][h][w][B].
struct Maps {
  int64_t n, blocks, h, w;
};

/// The tiles of a map. Tile t is (image, row, column), column fastest.
struct Tiling {
  int64_t rows, columns, count;
  RESNET_INLINE Tiling(const Maps& y, int m)
      : rows(ceil_div(y.h, m)), columns(ceil_div(y.w, m)), count(y.n * rows * columns) {}
};

/// Up to kStrip tiles of one tile row, from tile t on: what a separable transform does at a time.
constexpr int kStrip = 16;
struct Segment {
  int64_t image, row, column, tiles;
  RESNET_INLINE Segment(const Tiling& tiling, int64_t t, int64_t end)
      : image(t / (tiling.columns * tiling.rows)),
        row(t / tiling.columns % tiling.rows),
        column(t % tiling.columns),
        tiles(smaller(smaller(end - t, tiling.columns - column), kStrip)) {}
};

/// Transposes B rows of B floats in registers: at step S, lanes differing in bit S are exchanged.
template <int B, int S, int... I>
RESNET_INLINE void exchange(Vec<B>& low, Vec<B>& high, std::integer_sequence<int, I...>) {
  const Vec<B> a = low, b = high;
  low = __builtin_shufflevector(a, b, ((I & S) != 0 ? B + I - S : I)...);
  high = __builtin_shufflevector(a, b, ((I & S) != 0 ? B + I : I + S)...);
}
template <int B, int S = 1>
RESNET_INLINE void transpose(Vec<B> (&rows)[B]) {
  RESNET_UNROLL
  for (int i = 0; i < B; ++i) {
    if ((i & S) == 0) exchange<B, S>(rows[i], rows[i + S], std::make_integer_sequence<int, B>());
  }
  if constexpr (2 * S < B) transpose<B, 2 * S>(rows);
}

template <int B, int M, int kStride = 1>
struct Winograd {
  using V = Vec<B>;
  using Gemm = WinogradGemm<B>;
  using Transform = WinogradTransform<M, kStride>;
  static constexpr int N = kStride == 1 ? M + 2 : 2 * M + 1;
  static constexpr int kPoints = N * N;
  static constexpr int kWeightAxis = M + 2;
  static constexpr int kWeightPoints = kWeightAxis * kWeightAxis;
  static constexpr int kStep = kStride * M;  ///< inputs from one tile to the next
  static constexpr int kPanel = Gemm::kPanel;
  static constexpr int64_t kStripPitch = (kStrip * kStep + N - kStep) * B;
  static constexpr int64_t kStripFloats = N * kStripPitch;
  /// Channel blocks summed per visit of the micro kernel, so that its 16 KB of U stay in L1.
  static constexpr int64_t kDepth = B == 16 ? 8 : 32;

  // Sizes that only speed depends on, from timings on CPUs with 512 KB (B = 8) and 2 MB of L2 (B = 16).
  static constexpr int64_t kCache = B == 16 ? 800 << 10 : 300 << 10;   ///< V and P of a thread's block of tiles
  static constexpr int64_t kTeamCache = B == 16 ? 12 << 20 : 8 << 20;  ///< V of the team's block of tiles
  static constexpr int64_t kTeamBytes = B == 16 ? 4 << 20 : 3 << 20;   ///< U above this is streamed by a team
  static constexpr int64_t kGroup = 64 / B / 2, kTeamGroup = 64 / B;   ///< output blocks of P at a time, even
  static constexpr int64_t kFewTiles = 2 * Gemm::kRows;  ///< up to these V is small, and U is made one panel at a time

  // ---- activation transforms --------------------------------------------------------------------

  /// One axis: kTaps = N is the input's B^T, kTaps = M the output gradient's A.
  template <int kTaps>
  static RESNET_INLINE void one_axis(const V (&d)[kTaps], V (&o)[N]) {
    if constexpr (kTaps == N) {
      Transform::input(d, o);
    } else {
      Transform::output_gradient(d, o);
    }
  }

  static RESNET_INLINE void clear_columns(float* strip, int64_t from, int64_t to) {
    for (int64_t j = from; j < to; ++j) {
      RESNET_UNROLL
      for (int i = 0; i < N; ++i) store<B>(strip + i * kStripPitch + j * B, zero<B>());
      asm volatile("" ::: "memory");  // else GCC makes it N calls of memset, for a column or two
    }
  }

  /// Where the tiles of a block go in V and Z: `run` tiles together, runs `run_pitch` elements apart.
  struct Rows {
    int64_t run, run_pitch, plane;
  };

  static RESNET_INLINE void put_point(float* to, const V& value, const V&) { store<B>(to, value); }
  static RESNET_INLINE void put_point(Half* to, const V& value, const V& scale) { store_half<B>(to, value * scale); }

  /// Writes v[xi][t - t0] for tiles [t0, t1) of one channel block. kTaps = N reads windows that
  /// overlap by N - kStep, shifted by -pad; kTaps = M the tiles themselves. zero_row: w*B zeros. T is float, or Half:
  /// then a tile's points are multiplied by its run's entry of `scales`.
  template <int kTaps, class T>
  static void transform(const float* x, const Maps& maps, int64_t block, int64_t pad, const Tiling& tiling, int64_t t0,
                        int64_t t1, T* v, const Rows& rows, float* strip, const float* zero_row,
                        const float* scales = nullptr) {
    constexpr int kAdvance = kTaps == N ? kStep : M;
    for (int64_t t = t0; t < t1;) {
      const Segment s(tiling, t, t1);
      const int64_t x0 = s.column * kAdvance - pad;
      const int64_t columns = (s.tiles - 1) * kAdvance + kTaps;
      const int64_t first = smaller(larger(-x0, 0), columns), last = larger(smaller(columns, maps.w - x0), first);
      const float* row[kTaps];
      for (int r = 0; r < kTaps; ++r) {
        const int64_t y = s.row * kAdvance - pad + r;
        const bool inside = y >= 0 && y < maps.h;
        row[r] = inside ? x + ((s.image * maps.blocks + block) * maps.h + y) * maps.w * B : zero_row;
      }
      clear_columns(strip, 0, first);
      for (int64_t j = first; j < last; ++j) {
        V d[kTaps], o[N];
        RESNET_UNROLL
        for (int r = 0; r < kTaps; ++r) d[r] = load<B>(row[r] + (x0 + j) * B);
        one_axis<kTaps>(d, o);
        RESNET_UNROLL
        for (int i = 0; i < N; ++i) store<B>(strip + i * kStripPitch + j * B, o[i]);
      }
      clear_columns(strip, last, columns);
      for (int64_t q = 0; q < s.tiles;) {
        const int64_t at = t - t0 + q, end = smaller(s.tiles, q + rows.run - at % rows.run);
        const V scale = splat<B>(scales == nullptr ? 1 : scales[at / rows.run]);
        T* out = v + at / rows.run * rows.run_pitch + at % rows.run * B;
        for (int i = 0; i < N; ++i) {
          const float* in = strip + i * kStripPitch + q * kAdvance * B;
          T* to = out + i * N * rows.plane;
          for (int64_t n = end - q; n > 0; --n, in += kAdvance * B, to += B) {
            V d[kTaps], o[N];
            RESNET_UNROLL
            for (int r = 0; r < kTaps; ++r) d[r] = load<B>(in + r * B);
            one_axis<kTaps>(d, o);
            RESNET_UNROLL
            for (int j = 0; j < N; ++j) put_point(to + j * rows.plane, o[j], scale);
          }
        }
        q = end;
      }
      t += s.tiles;
    }
  }

  struct Epilogue {
    const float* bias;
    const float* residual;
    bool relu;
    int64_t channels;              ///< bias has as many entries
    const float* scale = nullptr;  ///< of P by channel, padded to whole blocks; only where kScaled
  };

  /// y = A^T P A (* scale) + bias (+ residual) (relu) for tiles [t0, t1) of one channel block; p[xi][t - t0].
  template <bool kResidual, bool kRelu, bool kScaled>
  static void inverse(const float* p, int64_t plane, const Maps& maps, int64_t block, const Tiling& tiling, int64_t t0,
                      int64_t t1, const Epilogue& epilogue, float* y, float* strip) {
    V bias = zero<B>();
    if (epilogue.bias != nullptr) {
      float padded[B] = {};
      const int64_t count = smaller(B, epilogue.channels - block * B);
      for (int64_t i = 0; i < count; ++i) padded[i] = epilogue.bias[block * B + i];
      bias = load<B>(padded);
    }
    V scale = zero<B>();
    if constexpr (kScaled) scale = load<B>(epilogue.scale + block * B);
    for (int64_t t = t0; t < t1;) {
      const Segment s(tiling, t, t1);
      for (int i = 0; i < N; ++i) {
        const float* in = p + i * N * plane + (t - t0) * B;
        for (int64_t q = 0; q < s.tiles; ++q) {
          V d[N], o[M];
          RESNET_UNROLL
          for (int j = 0; j < N; ++j) d[j] = load<B>(in + j * plane + q * B);
          Transform::output(d, o);
          RESNET_UNROLL
          for (int j = 0; j < M; ++j) store<B>(strip + i * kStripPitch + (q * M + j) * B, o[j]);
        }
      }
      const int64_t row_floats = maps.w * B;
      const int64_t at = ((s.image * maps.blocks + block) * maps.h + s.row * M) * row_floats + s.column * M * B;
      const int64_t columns = smaller(s.tiles * M, maps.w - s.column * M);
      const int64_t rows = smaller(M, maps.h - s.row * M);
      for (int64_t j = 0; j < columns; ++j) {
        V d[N], o[M];
        RESNET_UNROLL
        for (int i = 0; i < N; ++i) d[i] = load<B>(strip + i * kStripPitch + j * B);
        Transform::output(d, o);
        RESNET_UNROLL
        for (int r = 0; r < M; ++r) {
          if (r < rows) {
            const int64_t here = at + r * row_floats + j * B;
            V value;
            if constexpr (kScaled) {
              value = o[r] * scale + bias;
            } else {
              value = o[r] + bias;
            }
            if constexpr (kResidual) value += load<B>(epilogue.residual + here);
            if constexpr (kRelu) value = relu<B>(value);
            store<B>(y + here, value);
          }
        }
      }
      t += s.tiles;
    }
  }

  template <bool kScaled = false>
  static void inverse(const float* p, int64_t plane, const Maps& maps, int64_t block, const Tiling& tiling, int64_t t0,
                      int64_t t1, const Epilogue& e, float* y, float* strip) {
    const auto run = e.residual != nullptr
                         ? (e.relu ? &inverse<true, true, kScaled> : &inverse<true, false, kScaled>)
                         : (e.relu ? &inverse<false, true, kScaled> : &inverse<false, false, kScaled>);
    run(p, plane, maps, block, tiling, t0, t1, e, y, strip);
  }

  // ---- weights ----------------------------------------------------------------------------------

  /// Floats between two points of a panel of U, and between two panels.
  static RESNET_INLINE int64_t point_pitch(int64_t depth) { return odd_lines(depth * B * kPanel); }
  static RESNET_INLINE int64_t panel_pitch(int64_t depth) { return kWeightPoints * point_pitch(depth); }

  static RESNET_INLINE void pack_vector(const V (&g)[3][3], float* u, int64_t pitch) {
    V columns[3][kWeightAxis];
    RESNET_UNROLL
    for (int s = 0; s < 3; ++s) {
      const V tap[3] = {g[0][s], g[1][s], g[2][s]};
      Transform::weight(tap, columns[s]);
    }
    RESNET_UNROLL
    for (int i = 0; i < kWeightAxis; ++i) {
      const V tap[3] = {columns[0][i], columns[1][i], columns[2][i]};
      V o[kWeightAxis];
      Transform::weight(tap, o);
      RESNET_UNROLL
      for (int j = 0; j < kWeightAxis; ++j) store<B>(u + (i * kWeightAxis + j) * pitch, o[j]);
    }
  }

  /// Which of the weights' points meets point `xi` of the activations.
  static RESNET_INLINE int64_t weight_point(int64_t xi) {
    const int64_t i = smaller(xi / N, kWeightAxis - 1), j = smaller(xi % N, kWeightAxis - 1);
    return i * kWeightAxis + j;
  }

  /// Nine B x B blocks, each transposed, in reverse order: the forward's weights as backward_data uses them.
  static void rotate(const float* w, float* rotated) {
    for (int tap = 0; tap < 9; ++tap) {
      V rows[B];
      RESNET_UNROLL
      for (int i = 0; i < B; ++i) rows[i] = load<B>(w + (tap * B + i) * B);
      transpose<B>(rows);
      RESNET_UNROLL
      for (int i = 0; i < B; ++i) store<B>(rotated + ((8 - tap) * B + i) * B, rows[i]);
    }
  }

  /// U's panel of output blocks 2*panel and 2*panel + 1, of the input blocks [first, last). The weights have `depth`
  /// input blocks for the convolution (w is [outputs][depth]) or, flipped, `depth` blocks of the forward's outputs
  /// (w is [depth][outputs]). A last panel of one block leaves its second half unset.
  static void pack_panel(const float* w, int64_t outputs, int64_t depth, bool flipped, int64_t panel, int64_t first,
                         int64_t last, float* u) {
    const int64_t pitch = point_pitch(last - first);
    const int64_t width = smaller(2, outputs - 2 * panel);
    float rotated[2][9 * B * B];
    for (int64_t in = first; in < last; ++in) {
      const float* from[2] = {};
      for (int64_t j = 0; j < width; ++j) {
        const int64_t out = 2 * panel + j;
        from[j] = w + (flipped ? in * outputs + out : out * depth + in) * 9 * B * B;
        if (flipped) {
          rotate(from[j], rotated[j]);
          from[j] = rotated[j];
        }
      }
      // Both halves of a row of U one after the other: their cache line is fetched and written once.
      for (int c = 0; c < B; ++c) {
        for (int64_t j = 0; j < width; ++j) {
          V g[3][3];
          RESNET_UNROLL
          for (int r = 0; r < 3; ++r) {
            RESNET_UNROLL
            for (int s = 0; s < 3; ++s) g[r][s] = load<B>(from[j] + ((r * 3 + s) * B + c) * B);
          }
          pack_vector(g, u + ((in - first) * B + c) * kPanel + j * B, pitch);
        }
      }
    }
  }

  // ---- forward and backward_data ----------------------------------------------------------------

  struct ForwardPlan {
    Maps in, out;
    int64_t pad, channels;
    bool flipped;
    int threads;
    Tiling tiling;
    bool team;      ///< the threads share V and part the channels
    bool pieces;    ///< U is made a piece at a time, and anew for every block of tiles
    int64_t tiles;  ///< per block
    int64_t group;  ///< output blocks whose P is kept at a time, even
    int64_t fresh;  ///< output blocks whose U is made at a time, even
    int64_t pitch, v_plane, p_plane;

    RESNET_INLINE ForwardPlan(const WinogradProblem& p, bool data, bool packed)
        : in{p.n, ceil_div(p.c, B), p.h, p.w},
          out{p.n, ceil_div(p.k, B), (p.h + 2 * p.pad - 3) / kStride + 1, (p.w + 2 * p.pad - 3) / kStride + 1},
          pad(p.pad),
          channels(p.k),
          flipped(data),
          threads(p.threads),
          tiling(out, M) {
      if (data) {
        const Maps x = in;
        in = out;
        out = x;
        pad = 2 - p.pad;
        channels = p.c;
        tiling = Tiling(out, M);
      }
      const int64_t weight_bytes = in.blocks * out.blocks * B * B * kWeightPoints * 4;
      const bool large = weight_bytes > kTeamBytes;
      team = large && !p.apart;
      pieces = large && !packed;
      group = smaller(round_up(out.blocks, 2), team || pieces ? kTeamGroup : kGroup);
      const int64_t tile_bytes = kPoints * B * 4 * (team || pieces ? in.blocks : in.blocks + group);
      const int64_t cache = team ? kTeamCache : pieces ? kTeamCache / threads : kCache;
      const int64_t most = larger(cache / tile_bytes, Gemm::kRows);
      const int64_t workers = team ? 1 : threads;
      const int64_t rounds = ceil_div(tiling.count, most * workers);
      tiles = round_up(ceil_div(tiling.count, rounds * workers), Gemm::kRows);
      fresh = smaller(group, tiles > kFewTiles ? kTeamGroup : 2);
      pitch = (tiles | 1) * B;
      v_plane = odd_lines(in.blocks * tiles * B);
      p_plane = odd_lines(group * pitch);
    }
    /// Of `workers`: those that have U to make.
    RESNET_INLINE int64_t makers(int64_t workers) const {
      return team ? smaller(workers, ceil_div(out.blocks, group)) : workers;
    }
  };
  /// Scratch as thread `thread` sees it.
  struct ForwardBuffers {
    float *u = nullptr, *v = nullptr, *p = nullptr, *strip = nullptr, *zero_row = nullptr;
    int64_t floats = 0;
    RESNET_INLINE ForwardBuffers(const ForwardPlan& plan, bool packed, void* scratch, int thread) {
      Arena arena{static_cast<float*>(scratch)};
      if (!packed && !plan.pieces) u = arena.take(packed_floats(plan.in.blocks, plan.out.blocks));
      if (plan.team) v = arena.take(kPoints * plan.v_plane);
      for (int i = 0; i < plan.threads; ++i) {
        float* own_v = plan.team ? v : arena.take(kPoints * plan.v_plane);
        const int64_t depth = smaller(plan.in.blocks, kDepth);
        float* own_u = !plan.pieces                    ? u
                       : i < plan.makers(plan.threads) ? arena.take(packed_floats(depth, plan.fresh))
                                                       : nullptr;
        float* own_p = arena.take(kPoints * plan.p_plane);
        float* own_strip = arena.take(kStripFloats);
        float* own_row = arena.take(plan.in.w * B);
        if (i == thread) {
          v = own_v;
          u = own_u;
          p = own_p;
          strip = own_strip;
          zero_row = own_row;
        }
      }
      floats = arena.used;
    }
  };

  static RESNET_INLINE int64_t packed_floats(int64_t depth, int64_t outputs) {
    return ceil_div(outputs, 2) * panel_pitch(depth);
  }

  /// Asks for one of `parts` equal parts of the rows under tiles [t0, t1), `height` rows a tile, of channel blocks
  /// [b0, b1), so that memory works while the products compute.
  static void prefetch(const float* x, const Maps& maps, int64_t height, int64_t b0, int64_t b1, const Tiling& tiling,
                       int64_t t0, int64_t t1, int64_t part, int64_t parts) {
    const int64_t first = t0 / tiling.columns, last = ceil_div(t1, tiling.columns);
    const Range items = share((last - first) * (b1 - b0), part, parts);
    for (int64_t i = items.first; i < items.last; ++i) {
      const int64_t image = (first + i / (b1 - b0)) / tiling.rows, row = (first + i / (b1 - b0)) % tiling.rows * height;
      const int64_t plane = (image * maps.blocks + b0 + i % (b1 - b0)) * maps.h;
      const int64_t floats = smaller(height, maps.h - row) * maps.w * B;
      for (int64_t j = 0; j < floats; j += 16) __builtin_prefetch(x + (plane + row) * maps.w * B + j, 0, 2);
    }
  }

  /// Panels of U: those of the input blocks [first, last), the first panel at `u`.
  struct Panels {
    const float* u;
    int64_t first, last;
  };

  /// P (+)= V U for output blocks [k0, k1), whose panels these are, and `tiles` tiles; between points it calls
  /// between(xi). While one piece of U is used, the next one comes.
  template <class Between>
  static void products(const ForwardPlan& plan, const float* v, const Panels& panels, int64_t k0, int64_t k1,
                       int64_t tiles, float* p, const Between& between) {
    const int64_t run = plan.in.blocks * Gemm::kRows * B, depth = panels.last - panels.first;
    for (int xi = 0; xi < kPoints; ++xi) {
      between(xi);
      const float* point = panels.u + weight_point(xi) * point_pitch(depth);
      for (int64_t d = panels.first; d < panels.last; d += kDepth) {
        const int64_t blocks = smaller(kDepth, panels.last - d);
        for (int64_t k = k0; k < k1; k += 2) {
          const float* weights = point + (k - k0) / 2 * panel_pitch(depth) + (d - panels.first) * B * kPanel;
          const float* values = v + xi * plan.v_plane + d * Gemm::kRows * B;
          float* to = p + xi * plan.p_plane + (k - k0) * plan.pitch;
          const bool wider = k + 2 < k1, deeper = !wider && d + kDepth < panels.last;
          const int64_t next_d = wider ? d : deeper ? d + kDepth : panels.first;
          const int64_t next_xi = wider || deeper ? xi : xi + 1, next_panel = wider ? (k + 2 - k0) / 2 : 0;
          const float* next = panels.u + next_panel * panel_pitch(depth) + weight_point(next_xi) * point_pitch(depth) +
                              (next_d - panels.first) * B * kPanel;
          const Ahead ahead(next_xi < kPoints ? next : nullptr, smaller(kDepth, panels.last - next_d) * B * kPanel * 4,
                            ceil_div(tiles, Gemm::kRows) * blocks);
          if (k + 1 < k1) {
            Gemm::template product_panel<2>(tiles, values, run, blocks, weights, to, plan.pitch, d > 0, ahead);
          } else {
            Gemm::template product_panel<1>(tiles, values, run, blocks, weights, to, plan.pitch, d > 0, ahead);
          }
        }
      }
    }
  }

  /// The same for weights that are made in pieces, where they are used, and anew for every block of tiles: some three
  /// to six operations for each of its numbers, of which the products take one for every tile.
  static void fresh_products(const ForwardPlan& plan, const float* v, const float* w, int64_t k0, int64_t k1,
                             int64_t tiles, float* u, float* p) {
    const int64_t depth = plan.in.blocks;
    for (int64_t k = k0; k < k1; k += plan.fresh) {
      const int64_t end = smaller(k + plan.fresh, k1);
      for (int64_t d = 0; d < depth; d += kDepth) {
        const int64_t last = smaller(d + kDepth, depth);
        for (int64_t panel = k / 2; 2 * panel < end; ++panel) {
          pack_panel(w, plan.out.blocks, depth, plan.flipped, panel, d, last,
                     u + (panel - k / 2) * panel_pitch(last - d));
        }
        products(plan, v, {u, d, last}, k, end, tiles, p + (k - k0) * plan.pitch, [](int) {});
      }
    }
  }

  static void convolve(const ForwardPlan& plan, const float* x, const float* w, const float* packed,
                       const Epilogue& epilogue, float* y, void* scratch) {
#pragma omp parallel num_threads(plan.threads)
    {
      const int me = omp_get_thread_num(), workers = omp_get_num_threads();
      const ForwardBuffers buffers(plan, packed != nullptr, scratch, me);
      const int64_t pitch = panel_pitch(plan.in.blocks);
      if (packed == nullptr && !plan.pieces) {
        const Range panels = share(ceil_div(plan.out.blocks, 2), me, workers);
        for (int64_t i = panels.first; i < panels.last; ++i) {
          pack_panel(w, plan.out.blocks, plan.in.blocks, plan.flipped, i, 0, plan.in.blocks, buffers.u + i * pitch);
        }
#pragma omp barrier
      }
      for (int64_t i = 0; i < plan.in.w * B; ++i) buffers.zero_row[i] = 0;

      const int64_t blocks = ceil_div(plan.tiling.count, plan.tiles);
      const int64_t groups = ceil_div(plan.out.blocks, plan.group);
      const Range my_blocks = share(blocks, plan.team ? 0 : me, plan.team ? 1 : workers);
      const Range my_inputs = share(plan.in.blocks, plan.team ? me : 0, plan.team ? workers : 1);
      const Rows rows = {Gemm::kRows, plan.in.blocks * Gemm::kRows * B, plan.v_plane};
      const int64_t makers = plan.makers(workers);
      const Range my_groups = !plan.team ? Range{0, groups} : me < makers ? share(groups, me, makers) : Range{0, 0};
      for (int64_t b = my_blocks.first; b < my_blocks.last; ++b) {
        const int64_t t0 = b * plan.tiles, t1 = smaller(t0 + plan.tiles, plan.tiling.count);
        for (int64_t c = my_inputs.first; c < my_inputs.last; ++c) {
          transform<N>(x, plan.in, c, plan.pad, plan.tiling, t0, t1, buffers.v + c * Gemm::kRows * B, rows,
                       buffers.strip, buffers.zero_row);
        }
        if (plan.team) {
#pragma omp barrier
        }
        for (int64_t g = my_groups.first; g < my_groups.last; ++g) {
          const int64_t k0 = g * plan.group, k1 = smaller(k0 + plan.group, plan.out.blocks);
          if (plan.pieces) {
            fresh_products(plan, buffers.v, w, k0, k1, t1 - t0, buffers.u, buffers.p);
          } else {
            const float* u = (packed != nullptr ? packed : buffers.u) + k0 / 2 * pitch;
            products(plan, buffers.v, {u, 0, plan.in.blocks}, k0, k1, t1 - t0, buffers.p, [&](int xi) {
              if (plan.team) return;
              prefetch(y, plan.out, M, k0, k1, plan.tiling, t0, t1, xi, kPoints);
              if (b + 1 == my_blocks.last) return;
              const int64_t t2 = smaller(t1 + plan.tiles, plan.tiling.count);
              prefetch(x, plan.in, kStep, 0, plan.in.blocks, plan.tiling, t1, t2, g * kPoints + xi, groups * kPoints);
            });
          }
          for (int64_t k = k0; k < k1; ++k) {
            inverse(buffers.p + (k - k0) * plan.pitch, plan.p_plane, plan.out, k, plan.tiling, t0, t1, epilogue, y,
                    buffers.strip);
          }
        }
        if (plan.team) {
#pragma omp barrier
        }
      }
    }
  }

  static void forward(const WinogradProblem& p, const WinogradForward& a) {
    const ForwardPlan plan(p, false, a.packed != nullptr);
    convolve(plan, a.x, a.w, a.packed, {a.bias, a.residual, a.relu, p.k}, a.y, a.scratch);
  }
  static void backward_data(const WinogradProblem& p, const WinogradBackwardData& a) {
    const ForwardPlan plan(p, true, a.packed != nullptr);
    convolve(plan, a.dy, a.w, a.packed, {nullptr, nullptr, false, p.c}, a.dx, a.scratch);
  }

  static bool transforms_in_pieces(const WinogradProblem& p, WinogradPass pass) {
    return ForwardPlan(p, pass == WinogradPass::backward_data, false).pieces;
  }
  static size_t packed_weight_bytes(const WinogradProblem& p, WinogradPass pass) {
    const ForwardPlan plan(p, pass == WinogradPass::backward_data, true);
    return static_cast<size_t>(packed_floats(plan.in.blocks, plan.out.blocks)) * sizeof(float);
  }
  static void pack_weights(const WinogradProblem& p, WinogradPass pass, const float* w, float* packed) {
    const ForwardPlan plan(p, pass == WinogradPass::backward_data, true);
    const int64_t panels = ceil_div(plan.out.blocks, 2);
#pragma omp parallel for num_threads(plan.threads) schedule(static)
    for (int64_t i = 0; i < panels; ++i) {
      pack_panel(w, plan.out.blocks, plan.in.blocks, plan.flipped, i, 0, plan.in.blocks,
                 packed + i * panel_pitch(plan.in.blocks));
    }
  }

  // ---- backward_weights -------------------------------------------------------------------------

  // These decide the order of sums, so they are the same for every machine with this B.
  static constexpr int64_t kSliceBytes = 3 << 20;  ///< of one dU: larger ones are not worth adding up
  static constexpr int64_t kSliceCache = 1 << 20;  ///< V and Z of a thread's block of tiles
  static constexpr int64_t kShareCache = 8 << 20;  ///< V and Z of a team's

  /// Blocks of tiles are dealt to `slices` partial sums dU, a number that depends on the sizes only;
  /// with one slice the team shares each block.
  struct WeightPlan {
    Maps in, out;
    int64_t pad;
    int threads;
    Tiling tiling;
    int64_t tiles, blocks, slices;
    int64_t pitch, v_plane, z_plane, du_floats;

    RESNET_INLINE explicit WeightPlan(const WinogradProblem& p)
        : in{p.n, ceil_div(p.c, B), p.h, p.w},
          out{p.n, ceil_div(p.k, B), p.h + 2 * p.pad - 2, p.w + 2 * p.pad - 2},
          pad(p.pad),
          threads(p.threads),
          tiling(out, M) {
      du_floats = packed_floats(in.blocks, out.blocks);
      const bool small = du_floats * 4 <= kSliceBytes;
      const int64_t tile_bytes = kPoints * B * 4 * (in.blocks + out.blocks);
      tiles = (small ? kSliceCache : kShareCache) / tile_bytes;
      tiles = smaller(larger(smaller(tiles, 256), 32), tiling.count);
      blocks = ceil_div(tiling.count, tiles);
      slices = small ? smaller(8, blocks) : 1;
      pitch = (tiles | 1) * B;
      v_plane = odd_lines(in.blocks * pitch);
      z_plane = odd_lines(out.blocks * pitch);
    }
    RESNET_INLINE bool team() const { return slices == 1; }
  };

  struct WeightBuffers {
    float *du = nullptr, *v = nullptr, *z = nullptr, *strip = nullptr, *zero_row = nullptr;
    int64_t floats = 0;
    RESNET_INLINE WeightBuffers(const WeightPlan& plan, void* scratch, int thread) {
      Arena arena{static_cast<float*>(scratch)};
      du = arena.take(plan.slices * plan.du_floats);
      for (int i = 0; i < plan.threads; ++i) {
        if (i == 0 || !plan.team()) {
          float* own_v = arena.take(kPoints * plan.v_plane);
          float* own_z = arena.take(kPoints * plan.z_plane);
          if (i == 0 || i == thread) {
            v = own_v;
            z = own_z;
          }
        }
        float* own_strip = arena.take(kStripFloats);
        float* own_row = arena.take(larger(plan.in.w, plan.out.w) * B);
        if (i == thread) {
          strip = own_strip;
          zero_row = own_row;
        }
      }
      floats = arena.used;
    }
  };

  static void backward_weights(const WinogradProblem& p, const WinogradBackwardWeights& a) {
    const WeightPlan plan(p);
    const int64_t panels = ceil_div(plan.out.blocks, 2), pitch = point_pitch(plan.in.blocks);
#pragma omp parallel num_threads(plan.threads)
    {
      const int me = omp_get_thread_num(), workers = omp_get_num_threads();
      const bool team = plan.team();
      const WeightBuffers buffers(plan, a.scratch, me);
      for (int64_t i = 0; i < larger(plan.in.w, plan.out.w) * B; ++i) buffers.zero_row[i] = 0;

      const Range my_slices = share(plan.slices, team ? 0 : me, team ? 1 : workers);
      const int64_t maps = plan.in.blocks + plan.out.blocks;
      const Range my_maps = share(maps, team ? me : 0, team ? workers : 1);
      const Range my_products = share(panels * kPoints, team ? me : 0, team ? workers : 1);
      for (int64_t slice = my_slices.first; slice < my_slices.last; ++slice) {
        const Range my_blocks = share(plan.blocks, slice, plan.slices);
        float* du = buffers.du + slice * plan.du_floats;
        for (int64_t b = my_blocks.first; b < my_blocks.last; ++b) {
          const int64_t t0 = b * plan.tiles, t1 = smaller(t0 + plan.tiles, plan.tiling.count);
          for (int64_t i = my_maps.first; i < my_maps.last; ++i) {
            const int64_t k = i - plan.in.blocks;
            if (k < 0) {
              transform<N>(a.x, plan.in, i, plan.pad, plan.tiling, t0, t1, buffers.v + i * plan.pitch,
                           Rows{plan.tiles, 0, plan.v_plane}, buffers.strip, buffers.zero_row);
            } else {
              transform<M>(a.dy, plan.out, k, 0, plan.tiling, t0, t1, buffers.z + k * plan.pitch,
                           Rows{plan.tiles, 0, plan.z_plane}, buffers.strip, buffers.zero_row);
            }
          }
          if (team) {
#pragma omp barrier
          }
          for (int64_t i = my_products.first; i < my_products.last; ++i) {
            const int64_t panel = i / kPoints, xi = i % kPoints;
            const float* v = buffers.v + xi * plan.v_plane;
            const float* z = buffers.z + xi * plan.z_plane + 2 * panel * plan.pitch;
            float* to = du + i * pitch;
            const bool accumulate = b > my_blocks.first;
            if (2 * panel + 1 < plan.out.blocks) {
              Gemm::template outer_panel<2>(plan.in.blocks, v, plan.pitch, z, t1 - t0, to, accumulate);
            } else {
              Gemm::template outer_panel<1>(plan.in.blocks, v, plan.pitch, z, t1 - t0, to, accumulate);
            }
          }
          if (team) {
#pragma omp barrier
          }
        }
      }
#pragma omp barrier
      const Range my_panels = share(panels, me, workers);
      for (int64_t i = my_panels.first; i < my_panels.last; ++i) unpack_panel(plan, buffers.du, i, a.dw);
    }
  }

  /// dw = G^T (sum of slices dU) G for one panel of output channels.
  static void unpack_panel(const WeightPlan& plan, const float* du, int64_t panel, float* dw) {
    const int64_t pitch = point_pitch(plan.in.blocks);
    const int64_t width = smaller(2, plan.out.blocks - 2 * panel);
    for (int64_t c = 0; c < plan.in.blocks * B; ++c) {
      for (int64_t k = 0; k < width; ++k) {
        const float* from = du + panel * panel_pitch(plan.in.blocks) + c * kPanel + k * B;
        V columns[N][3];
        RESNET_UNROLL
        for (int i = 0; i < N; ++i) {
          V u[N];
          RESNET_UNROLL
          for (int j = 0; j < N; ++j) u[j] = load<B>(from + (i * N + j) * pitch);
          for (int64_t s = 1; s < plan.slices; ++s) {
            RESNET_UNROLL
            for (int j = 0; j < N; ++j) u[j] += load<B>(from + s * plan.du_floats + (i * N + j) * pitch);
          }
          Transform::weight_gradient(u, columns[i]);
        }
        float* to = dw + ((2 * panel + k) * plan.in.blocks + c / B) * 9 * B * B + c % B * B;
        RESNET_UNROLL
        for (int s = 0; s < 3; ++s) {
          V u[N], g[3];
          RESNET_UNROLL
          for (int i = 0; i < N; ++i) u[i] = columns[i][s];
          Transform::weight_gradient(u, g);
          RESNET_UNROLL
          for (int r = 0; r < 3; ++r) store<B>(to + (r * 3 + s) * B * B, g[r]);
        }
      }
    }
  }

  static size_t scratch_bytes(const WinogradProblem& p, WinogradPass pass, bool packed) {
    const int64_t floats =
        pass == WinogradPass::backward_weights
            ? WeightBuffers(WeightPlan(p), nullptr, 0).floats
            : ForwardBuffers(ForwardPlan(p, pass == WinogradPass::backward_data, packed), packed, nullptr, 0).floats;
    return static_cast<size_t>(floats) * sizeof(float);
  }
};

/// The run-time choice of M and of the stride; the gradients are of stride 1.
template <int B>
struct WinogradByTile {
  template <int kStride, class Call>
  static RESNET_INLINE auto by_tile(int tile, const Call& call) {
    if (tile == 2) return call(Winograd<B, 2, kStride>());
    if (tile == 3) return call(Winograd<B, 3, kStride>());
    return call(Winograd<B, 4, kStride>());
  }
  template <class Call>
  static RESNET_INLINE auto choose(const WinogradProblem& p, const Call& call) {
    return p.stride == 1 ? by_tile<1>(p.tile, call) : by_tile<2>(p.tile, call);
  }

  static bool transforms_in_pieces(const WinogradProblem& p, WinogradPass pass) {
    return choose(p, [&](auto winograd) { return winograd.transforms_in_pieces(p, pass); });
  }
  static size_t packed_weight_bytes(const WinogradProblem& p, WinogradPass pass) {
    return choose(p, [&](auto winograd) { return winograd.packed_weight_bytes(p, pass); });
  }
  static void pack_weights(const WinogradProblem& p, WinogradPass pass, const float* w, float* packed) {
    choose(p, [&](auto winograd) { winograd.pack_weights(p, pass, w, packed); });
  }
  static size_t scratch_bytes(const WinogradProblem& p, WinogradPass pass, bool packed) {
    return choose(p, [&](auto winograd) { return winograd.scratch_bytes(p, pass, packed); });
  }
  static void forward(const WinogradProblem& p, const WinogradForward& a) {
    choose(p, [&](auto winograd) { winograd.forward(p, a); });
  }
  static void backward_data(const WinogradProblem& p, const WinogradBackwardData& a) {
    by_tile<1>(p.tile, [&](auto winograd) { winograd.backward_data(p, a); });
  }
  static void backward_weights(const WinogradProblem& p, const WinogradBackwardWeights& a) {
    by_tile<1>(p.tile, [&](auto winograd) { winograd.backward_weights(p, a); });
  }
  static constexpr WinogradKernels kernels = {
      B,       transforms_in_pieces, packed_weight_bytes, pack_weights, scratch_bytes,
      forward, backward_data,        backward_weights};
};

}  // namespace resnet::simd::RESNET_ISA
