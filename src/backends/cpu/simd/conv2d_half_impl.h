#pragma once
// Convolutions with products in half precision, for blocks of B channels: direct ones of any kernel and stride, and
// Winograd's F(M x M, 3 x 3). Both are the same three steps over blocks of "items" (output pixels, or tiles) that stay
// in the caches:
//
//   fill     V[xi][c][t] = an item's input values (direct: its window, one tap after the other, so that the depth is
//            taps x channels), or their transform B^T x B (Winograd: N * N points xi), times a power of two, in half
//   products P[xi][k][t] = sum_c V[xi][c][t] U[xi][c][k], in half over at most kFlush channels, then in f32
//   drain    y = P or A^T P A, times the weights' power of two, + bias (+ residual) (relu), in f32
//
// Half holds numbers up to 65504, and below 6e-5 its digits get fewer. So U is divided by a power of two for each
// output channel that brings its largest value below 1, and V multiplied by one for each run of kRows items that brings
// the largest possible value to 2^kLargestExponent: no sum overflows, whatever the activations are, and small ones keep
// their digits. A run's power follows from the largest input of the rows under it, so it does not depend on threads.
//
// U is [panel][xi][depth][..] as HalfGemm reads it, V [xi][t / kRows][depth][t % kRows][B].

#include "backends/cpu/simd/conv2d_half.h"
#include "backends/cpu/simd/half_gemm.h"
#include "backends/cpu/simd/winograd_impl.h"

namespace resnet::simd::RESNET_ISA {

/// 2^exponent, for exponents of normal floats.
RESNET_INLINE float power_of_two(int exponent) {
  const uint32_t bits = static_cast<uint32_t>(exponent + 127) << 23;
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

/// The least e with value < 2^e, within +-100; 0 for 0. value >= 0.
RESNET_INLINE int exponent_above(float value) {
  if (value == 0) return 0;
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  const int exponent = static_cast<int>(bits >> 23) - 126;
  return exponent < -100 ? -100 : exponent > 100 ? 100 : exponent;
}

/// What a convolution is, seen as products over items. Item t is (image, row, column), column fastest; it reads
/// input rows row * step - pad to row * step - pad + reach - 1.
struct HalfShape {
  Maps in, out;
  int64_t rows, columns;
  int64_t step, reach, pad;
  int64_t points, depth;  ///< xi, and blocks of input channels (times taps)
  int gain_exponent;      ///< V is at most 2^this times the largest input
};

template <int B>
struct HalfConv {
  using V = Vec<B>;
  using Gemm = HalfGemm<B>;
  static constexpr int kRows = Gemm::kRows, kPanel = Gemm::kPanel;

  // Sizes that only speed depends on: those of the f32 Winograd kernels.
  static constexpr int64_t kCache = B == 16 ? 1200 << 10 : 300 << 10;  ///< V and P of a thread's block of items
  static constexpr int64_t kTeamCache = B == 16 ? 12 << 20 : 4 << 20;  ///< V of the team's block of items
  static constexpr int64_t kTeamBytes = B == 16 ? 4 << 20 : 3 << 20;   ///< U above this is streamed by a team
  static constexpr int64_t kGroup = 64 / B / 2, kTeamGroup = 64 / B;   ///< output blocks of P at a time, even

  /// A pitch of at least `halves` that is an odd number of 64-byte lines.
  static RESNET_INLINE int64_t odd_half_lines(int64_t halves) { return (ceil_div(halves, 32) | 1) * 32; }

  struct Plan : HalfShape {
    int threads;
    int64_t count;
    bool team;
    int64_t tiles;  ///< items per block, whole runs
    int64_t group;  ///< output blocks whose P is kept at a time, even
    int64_t run_pitch, v_plane, pitch, p_plane;

    RESNET_INLINE Plan(const HalfShape& shape, int thread_count)
        : HalfShape(shape), threads(thread_count), count(shape.in.n * shape.rows * shape.columns) {
      // A team also where whole blocks of a few runs each could not be dealt out evenly.
      constexpr int64_t kFewRuns = 8;
      team =
          threads > 1 && (depth * out.blocks * B * B * points * 2 > kTeamBytes || count < kFewRuns * kRows * threads);
      const int64_t share_of_outputs = round_up(ceil_div(out.blocks, threads), 2);
      group = smaller(round_up(out.blocks, 2), team ? smaller(kTeamGroup, share_of_outputs) : kGroup);
      const int64_t item_bytes = points * B * (team ? 2 * depth : 2 * depth + 4 * group);
      const int64_t most = larger((team ? kTeamCache : kCache) / item_bytes, kRows);
      const int64_t workers = team ? 1 : threads;
      const int64_t rounds = ceil_div(count, most * workers);
      tiles = round_up(ceil_div(count, rounds * workers), kRows);
      run_pitch = depth * kRows * B;
      v_plane = odd_half_lines(depth * tiles * B);
      pitch = (tiles | 1) * B;
      p_plane = odd_lines(group * pitch);
    }

    /// The input rows, over all images, that items [t0, t1) read.
    RESNET_INLINE Range rows_under(int64_t t0, int64_t t1) const {
      const int64_t items = rows * columns;
      const int64_t first = t0 % items / columns * step - pad;
      const int64_t last = (t1 - 1) % items / columns * step - pad + reach;
      return {t0 / items * in.h + smaller(larger(first, 0), in.h),
              (t1 - 1) / items * in.h + larger(smaller(last, in.h), 0)};
    }
  };

  /// Scratch as thread `thread` sees it.
  struct Buffers {
    Half* v = nullptr;
    float *p = nullptr, *strip = nullptr, *zero_row = nullptr;
    float* row_largest = nullptr;  ///< by input row, over all images
    float *scales = nullptr, *inverse_scales = nullptr;
    int64_t floats = 0;

    RESNET_INLINE Buffers(const Plan& plan, int64_t strip_floats, void* scratch, int thread) {
      Arena arena{static_cast<float*>(scratch)};
      const int64_t v_floats = ceil_div(plan.points * plan.v_plane, 2), all_rows = plan.in.n * plan.in.h;
      if (plan.team) {
        v = reinterpret_cast<Half*>(arena.take(v_floats));
        row_largest = arena.take(all_rows);
      }
      for (int i = 0; i < plan.threads; ++i) {
        Half* own_v = plan.team ? v : reinterpret_cast<Half*>(arena.take(v_floats));
        float* own_rows = plan.team ? row_largest : arena.take(all_rows);
        float* own_p = arena.take(plan.points * plan.p_plane);
        float* own_strip = arena.take(strip_floats);
        float* own_row = arena.take(plan.in.w * B);
        float* own_scales = arena.take(plan.tiles / kRows);
        float* own_inverse = arena.take(plan.tiles / kRows);
        if (i == thread) {
          v = own_v;
          row_largest = own_rows;
          p = own_p;
          strip = own_strip;
          zero_row = own_row;
          scales = own_scales;
          inverse_scales = own_inverse;
        }
      }
      floats = arena.used;
    }
  };

  static RESNET_INLINE float largest_lane(const V& v) {
    float lanes[B], most = 0;
    store<B>(lanes, v);
    for (int i = 0; i < B; ++i) most = lanes[i] > most ? lanes[i] : most;
    return most;
  }

  /// The largest absolute value of each of input rows [first, last) over all images.
  static void find_largest(const Plan& plan, const float* x, int64_t first, int64_t last, float* row_largest) {
    for (int64_t row = first; row < last; ++row) {
      const int64_t image = row / plan.in.h, y = row % plan.in.h;
      V high = zero<B>(), low = zero<B>();
      for (int64_t c = 0; c < plan.in.blocks; ++c) {
        const float* from = x + ((image * plan.in.blocks + c) * plan.in.h + y) * plan.in.w * B;
        for (int64_t i = 0; i < plan.in.w; ++i) {
          const V value = load<B>(from + i * B);
          high = larger_of<B>(value, high);
          low = larger_of<B>(-value, low);
        }
      }
      row_largest[row] = largest_lane(larger_of<B>(high, low));
    }
  }

  /// The powers of two of each run of items [t0, t1).
  static void find_scales(const Plan& plan, int64_t t0, int64_t t1, Buffers& buffers) {
    for (int64_t t = t0, run = 0; t < t1; t += kRows, ++run) {
      const Range rows = plan.rows_under(t, smaller(t + kRows, t1));
      float most = 0;
      for (int64_t row = rows.first; row < rows.last; ++row) {
        most = buffers.row_largest[row] > most ? buffers.row_largest[row] : most;
      }
      const int up = Gemm::kLargestExponent - plan.gain_exponent - exponent_above(most);
      buffers.scales[run] = power_of_two(up);
      buffers.inverse_scales[run] = power_of_two(-up);
    }
  }

  // ---- weights ----------------------------------------------------------------------------------

  static RESNET_INLINE int64_t point_pitch(const Plan& plan) { return odd_half_lines(plan.depth * B * kPanel); }
  static RESNET_INLINE int64_t panel_pitch(const Plan& plan) { return plan.points * point_pitch(plan); }
  /// Packed weights begin with the output channels' powers of two.
  static RESNET_INLINE int64_t scale_floats(const Plan& plan) { return round_up(round_up(plan.out.blocks, 2) * B, 16); }
  static size_t packed_bytes(const Plan& plan) {
    return static_cast<size_t>(scale_floats(plan)) * sizeof(float) +
           static_cast<size_t>(ceil_div(plan.out.blocks, 2) * panel_pitch(plan)) * sizeof(Half);
  }
  static RESNET_INLINE const Half* packed_halves(const Plan& plan, const void* packed) {
    return reinterpret_cast<const Half*>(static_cast<const float*>(packed) + scale_floats(plan));
  }

  /// Input channel c (of the whole depth) of a panel's half j: B output channels, at the places HalfGemm reads.
  static void put_weights(const V& weights, int64_t c, int64_t j, Half* u) {
    Half halves[B];
    store_half<B>(halves, weights);
    Half* to = u + (c - c % 2) * kPanel + c % 2;
    for (int i = 0; i < B; ++i) {
      const int64_t k = j * B + i;
      to[k % 2 * kPanel + k / 2 * 2] = halves[i];
    }
  }

  /// Packs all panels. points_of(out, c, points) writes the plan.points vectors of weights that input channel c of the
  /// depth has for output block `out`.
  template <class PointsOf>
  static void pack(const Plan& plan, void* packed, const PointsOf& points_of) {
    constexpr int kMostPoints = 36;
    auto* channel_scales = static_cast<float*>(packed);
    auto* halves = reinterpret_cast<Half*>(channel_scales + scale_floats(plan));
#pragma omp parallel for num_threads(plan.threads) schedule(static)
    for (int64_t panel = 0; panel < ceil_div(plan.out.blocks, 2); ++panel) {
      Half* u = halves + panel * panel_pitch(plan);
      for (int64_t j = 0; j < 2; ++j) {
        const int64_t out = 2 * panel + j;
        const bool real = out < plan.out.blocks;  // else the second half of the last panel, which nobody drains
        float scale[B] = {}, inverse[B] = {};
        V points[kMostPoints], most = zero<B>();
        for (int64_t c = 0; real && c < plan.depth * B; ++c) {
          points_of(out, c, points);
          for (int64_t xi = 0; xi < plan.points; ++xi) {
            most = larger_of<B>(larger_of<B>(points[xi], most), -points[xi]);
          }
        }
        float lanes[B];
        store<B>(lanes, most);
        for (int i = 0; i < B; ++i) {
          scale[i] = power_of_two(exponent_above(lanes[i]));
          inverse[i] = power_of_two(-exponent_above(lanes[i]));
        }
        store<B>(channel_scales + out * B, load<B>(scale));
        for (int64_t c = 0; c < plan.depth * B; ++c) {
          if (real) points_of(out, c, points);
          for (int64_t xi = 0; xi < plan.points; ++xi) {
            put_weights(real ? points[xi] * load<B>(inverse) : zero<B>(), c, j, u + xi * point_pitch(plan));
          }
        }
      }
    }
  }

  // ---- the three steps --------------------------------------------------------------------------

  /// P for output blocks [k0, k1), whose panels start at u, and `tiles` items; between points it calls between(xi).
  /// While one piece of the weights is used, the next one comes.
  template <class Between>
  static void products(const Plan& plan, const Buffers& buffers, const Half* u, int64_t k0, int64_t k1, int64_t tiles,
                       const Between& between) {
    for (int64_t xi = 0; xi < plan.points; ++xi) {
      between(xi);
      for (int64_t d = 0; d < plan.depth; d += Gemm::kFlushBlocks) {
        const int64_t blocks = smaller(Gemm::kFlushBlocks, plan.depth - d);
        for (int64_t k = k0; k < k1; k += 2) {
          const Half* weights = u + (k - k0) / 2 * panel_pitch(plan) + xi * point_pitch(plan) + d * B * kPanel;
          const Half* values = buffers.v + xi * plan.v_plane + d * kRows * B;
          float* to = buffers.p + xi * plan.p_plane + (k - k0) * plan.pitch;
          const bool wider = k + 2 < k1, deeper = !wider && d + Gemm::kFlushBlocks < plan.depth;
          const int64_t next_d = wider ? d : deeper ? d + Gemm::kFlushBlocks : 0;
          const int64_t next_xi = wider || deeper ? xi : xi + 1, next_panel = wider ? (k + 2 - k0) / 2 : 0;
          const Half* next = u + next_panel * panel_pitch(plan) + next_xi * point_pitch(plan) + next_d * B * kPanel;
          const Ahead ahead(next_xi < plan.points ? next : nullptr,
                            smaller(Gemm::kFlushBlocks, plan.depth - next_d) * B * kPanel * 2,
                            ceil_div(tiles, kRows) * blocks);
          Gemm::product_panel(tiles, values, plan.run_pitch, blocks, weights, buffers.inverse_scales, to, plan.pitch,
                              d > 0, ahead);
        }
      }
    }
  }

  /// Runs the steps: kind.fill() a block of the depth for items [t0, t1), kind.drain() an output block, and what may
  /// fetch memory ahead while the products compute, an even part at each of their points.
  template <class Kind>
  static void convolve(const Plan& plan, const Kind& kind, const float* x, const void* packed, void* scratch) {
#pragma omp parallel num_threads(plan.threads)
    {
      const int me = omp_get_thread_num(), workers = omp_get_num_threads();
      Buffers buffers(plan, Kind::kStripFloats, scratch, me);
      for (int64_t i = 0; i < plan.in.w * B; ++i) buffers.zero_row[i] = 0;
      const int64_t blocks = ceil_div(plan.count, plan.tiles);
      const int64_t groups = ceil_div(plan.out.blocks, plan.group);
      const Range my_blocks = share(blocks, plan.team ? 0 : me, plan.team ? 1 : workers);
      const Range my_inputs = share(plan.depth, plan.team ? me : 0, plan.team ? workers : 1);
      const Range my_groups = share(groups, plan.team ? me : 0, plan.team ? workers : 1);
      for (int64_t b = my_blocks.first; b < my_blocks.last; ++b) {
        const int64_t t0 = b * plan.tiles, t1 = smaller(t0 + plan.tiles, plan.count);
        const Range rows = plan.rows_under(t0, t1);
        const Range my_rows = share(rows.last - rows.first, plan.team ? me : 0, plan.team ? workers : 1);
        find_largest(plan, x, rows.first + my_rows.first, rows.first + my_rows.last, buffers.row_largest);
        if (plan.team) {
#pragma omp barrier
        }
        find_scales(plan, t0, t1, buffers);
        for (int64_t d = my_inputs.first; d < my_inputs.last; ++d) kind.fill(plan, buffers, x, d, t0, t1);
        if (plan.team) {
#pragma omp barrier
        }
        for (int64_t g = my_groups.first; g < my_groups.last; ++g) {
          const int64_t k0 = g * plan.group, k1 = smaller(k0 + plan.group, plan.out.blocks);
          const Half* u = packed_halves(plan, packed) + k0 / 2 * panel_pitch(plan);
          products(plan, buffers, u, k0, k1, t1 - t0, [&](int64_t xi) {
            if (plan.team) return;
            kind.prefetch_output(plan, k0, k1, t0, t1, xi);
            if (b + 1 == my_blocks.last) return;
            const int64_t t2 = smaller(t1 + plan.tiles, plan.count);
            kind.prefetch_input(plan, x, t1, t2, g * plan.points + xi, groups * plan.points);
          });
          for (int64_t k = k0; k < k1; ++k) {
            kind.drain(plan, buffers, buffers.p + (k - k0) * plan.pitch, k, t0, t1);
          }
        }
        if (plan.team) {
#pragma omp barrier
        }
      }
    }
  }

  static size_t scratch_bytes(const Plan& plan, int64_t strip_floats) {
    return static_cast<size_t>(Buffers(plan, strip_floats, nullptr, 0).floats) * sizeof(float);
  }
};

/// The bias of one block of output channels, padded with zeros.
template <int B>
RESNET_INLINE Vec<B> bias_of_block(const float* bias, int64_t block, int64_t channels) {
  if (bias == nullptr) return zero<B>();
  float padded[B] = {};
  const int64_t count = smaller(B, channels - block * B);
  for (int64_t i = 0; i < count; ++i) padded[i] = bias[block * B + i];
  return load<B>(padded);
}

/// An item is an output pixel; its depth is [tap][input block].
template <int B>
struct HalfDirect {
  using V = Vec<B>;
  using Conv = HalfConv<B>;
  using Plan = typename Conv::Plan;
  using Buffers = typename Conv::Buffers;
  static constexpr int64_t kStripFloats = 0;

  const HalfConvProblem& p;
  const HalfConvForward& a;

  static Plan plan_of(const HalfConvProblem& p) {
    const Maps in{p.n, ceil_div(p.c, B), p.h, p.w}, out{p.n, ceil_div(p.k, B), p.ho, p.wo};
    return Plan({.in = in,
                 .out = out,
                 .rows = p.ho,
                 .columns = p.wo,
                 .step = p.stride_h,
                 .reach = p.r,
                 .pad = p.pad_h,
                 .points = 1,
                 .depth = p.r * p.s * in.blocks,
                 .gain_exponent = 0},
                p.threads);
  }

  void fill(const Plan& plan, const Buffers& buffers, const float* x, int64_t d, int64_t t0, int64_t t1) const {
    constexpr int kRows = Conv::kRows;
    const int64_t tap = d / plan.in.blocks, block = d % plan.in.blocks;
    const int64_t dy = tap / p.s - p.pad_h, dx = tap % p.s - p.pad_w;
    for (int64_t t = t0; t < t1;) {
      const int64_t image = t / (p.ho * p.wo), row = t / p.wo % p.ho, column = t % p.wo, at = t - t0;
      const int64_t count = smaller(smaller(t1 - t, p.wo - column), kRows - at % kRows);
      const int64_t y = row * p.stride_h + dy;
      const bool inside = y >= 0 && y < p.h;
      const float* from = x + ((image * plan.in.blocks + block) * p.h + (inside ? y : 0)) * p.w * B;
      const V scale = splat<B>(buffers.scales[at / kRows]);
      Half* to = buffers.v + at / kRows * plan.run_pitch + (d * kRows + at % kRows) * B;
      int64_t at_x = column * p.stride_w + dx;
      for (int64_t i = 0; i < count; ++i, at_x += p.stride_w, to += B) {
        const bool real = inside && at_x >= 0 && at_x < p.w;
        store_half<B>(to, real ? load<B>(from + at_x * B) * scale : zero<B>());
      }
      t += count;
    }
  }

  void prefetch_output(const Plan&, int64_t, int64_t, int64_t, int64_t, int64_t) const {}
  void prefetch_input(const Plan&, const float*, int64_t, int64_t, int64_t, int64_t) const {}

  template <bool kResidual, bool kRelu>
  void drain_block(const Plan& plan, const float* from, int64_t k, int64_t t0, int64_t t1) const {
    const V bias = bias_of_block<B>(a.bias, k, p.k), scale = load<B>(static_cast<const float*>(a.packed) + k * B);
    const int64_t pixels = p.ho * p.wo;
    for (int64_t t = t0; t < t1;) {
      const int64_t image = t / pixels, pixel = t % pixels, count = smaller(t1 - t, pixels - pixel);
      const int64_t at = ((image * plan.out.blocks + k) * pixels + pixel) * B;
      for (int64_t i = 0; i < count * B; i += B) {
        V value = load<B>(from + i) * scale + bias;
        if constexpr (kResidual) value += load<B>(a.residual + at + i);
        if constexpr (kRelu) value = relu<B>(value);
        store<B>(a.y + at + i, value);
      }
      from += count * B;
      t += count;
    }
  }
  void drain(const Plan& plan, const Buffers&, const float* from, int64_t k, int64_t t0, int64_t t1) const {
    if (a.residual != nullptr) {
      a.relu ? drain_block<true, true>(plan, from, k, t0, t1) : drain_block<true, false>(plan, from, k, t0, t1);
    } else {
      a.relu ? drain_block<false, true>(plan, from, k, t0, t1) : drain_block<false, false>(plan, from, k, t0, t1);
    }
  }

  static size_t packed_weight_bytes(const HalfConvProblem& p) { return Conv::packed_bytes(plan_of(p)); }
  static void pack_weights(const HalfConvProblem& p, const float* w, void* packed) {
    const Plan plan = plan_of(p);
    const int64_t taps = p.r * p.s;
    Conv::pack(plan, packed, [&](int64_t out, int64_t c, V* point) {
      const int64_t d = c / B, tap = d / plan.in.blocks, block = d % plan.in.blocks;
      *point = load<B>(w + (((out * plan.in.blocks + block) * taps + tap) * B + c % B) * B);
    });
  }
  static size_t scratch_bytes(const HalfConvProblem& p) { return Conv::scratch_bytes(plan_of(p), kStripFloats); }
  static void forward(const HalfConvProblem& p, const HalfConvForward& a) {
    Conv::convolve(plan_of(p), HalfDirect{p, a}, a.x, a.packed, a.scratch);
  }
};

/// An item is a tile of M x M output pixels; its points are the transform's.
template <int B, int M>
struct HalfWinograd {
  using V = Vec<B>;
  using Conv = HalfConv<B>;
  using Plan = typename Conv::Plan;
  using Buffers = typename Conv::Buffers;
  using Full = Winograd<B, M>;
  static constexpr int N = M + 2;
  static constexpr int64_t kStripFloats = Full::kStripFloats;
  /// The largest row sum of |B^T| is 2, 3.85 and 5.29 (winograd_transforms.h); both axes square it.
  static constexpr int kGainExponent = M == 2 ? 2 : M == 3 ? 4 : 5;

  const HalfConvProblem& p;
  const HalfConvForward& a;
  Tiling tiling;

  HalfWinograd(const Plan& plan, const HalfConvProblem& problem, const HalfConvForward& args)
      : p(problem), a(args), tiling(plan.out, M) {}

  static Plan plan_of(const HalfConvProblem& p) {
    const Maps in{p.n, ceil_div(p.c, B), p.h, p.w}, out{p.n, ceil_div(p.k, B), p.ho, p.wo};
    const Tiling tiling(out, M);
    return Plan({.in = in,
                 .out = out,
                 .rows = tiling.rows,
                 .columns = tiling.columns,
                 .step = M,
                 .reach = N,
                 .pad = p.pad_h,
                 .points = N * N,
                 .depth = in.blocks,
                 .gain_exponent = kGainExponent},
                p.threads);
  }

  void fill(const Plan& plan, const Buffers& buffers, const float* x, int64_t d, int64_t t0, int64_t t1) const {
    Full::template transform<N>(x, plan.in, d, p.pad_h, tiling, t0, t1, buffers.v + d * Conv::kRows * B,
                                {Conv::kRows, plan.run_pitch, plan.v_plane}, buffers.strip, buffers.zero_row,
                                buffers.scales);
  }
  void prefetch_output(const Plan& plan, int64_t k0, int64_t k1, int64_t t0, int64_t t1, int64_t part) const {
    Full::prefetch(a.y, plan.out, M, k0, k1, tiling, t0, t1, part, plan.points);
  }
  void prefetch_input(const Plan& plan, const float* x, int64_t t0, int64_t t1, int64_t part, int64_t parts) const {
    Full::prefetch(x, plan.in, M, 0, plan.in.blocks, tiling, t0, t1, part, parts);
  }
  void drain(const Plan& plan, const Buffers& buffers, const float* from, int64_t k, int64_t t0, int64_t t1) const {
    Full::template inverse<true>(from, plan.p_plane, plan.out, k, tiling, t0, t1,
                                 {a.bias, a.residual, a.relu, p.k, static_cast<const float*>(a.packed)}, a.y,
                                 buffers.strip);
  }

  static size_t packed_weight_bytes(const HalfConvProblem& p) { return Conv::packed_bytes(plan_of(p)); }
  static void pack_weights(const HalfConvProblem& p, const float* w, void* packed) {
    const Plan plan = plan_of(p);
    Conv::pack(plan, packed, [&](int64_t out, int64_t c, V* points) {
      const float* from = w + ((out * plan.in.blocks + c / B) * 9 * B + c % B) * B;
      V g[3][3];
      RESNET_UNROLL
      for (int r = 0; r < 3; ++r) {
        RESNET_UNROLL
        for (int s = 0; s < 3; ++s) g[r][s] = load<B>(from + (r * 3 + s) * B * B);
      }
      float u[N * N * B];
      Full::pack_vector(g, u, B);
      for (int xi = 0; xi < N * N; ++xi) points[xi] = load<B>(u + xi * B);
    });
  }
  static size_t scratch_bytes(const HalfConvProblem& p) { return Conv::scratch_bytes(plan_of(p), kStripFloats); }
  static void forward(const HalfConvProblem& p, const HalfConvForward& a) {
    const Plan plan = plan_of(p);
    Conv::convolve(plan, HalfWinograd(plan, p, a), a.x, a.packed, a.scratch);
  }
};

/// The run-time choice between them.
template <int B>
struct HalfConvByTile {
  template <class Use>
  static auto with_kind(int tile, const Use& use) {
    switch (tile) {
      case 2: return use.template operator()<HalfWinograd<B, 2>>();
      case 3: return use.template operator()<HalfWinograd<B, 3>>();
      case 4: return use.template operator()<HalfWinograd<B, 4>>();
      default: return use.template operator()<HalfDirect<B>>();
    }
  }
  static size_t packed_weight_bytes(const HalfConvProblem& p) {
    return with_kind(p.tile, [&]<class Kind>() { return Kind::packed_weight_bytes(p); });
  }
  static void pack_weights(const HalfConvProblem& p, const float* w, void* packed) {
    with_kind(p.tile, [&]<class Kind>() { Kind::pack_weights(p, w, packed); });
  }
  static size_t scratch_bytes(const HalfConvProblem& p) {
    return with_kind(p.tile, [&]<class Kind>() { return Kind::scratch_bytes(p); });
  }
  static void forward(const HalfConvProblem& p, const HalfConvForward& a) {
    with_kind(p.tile, [&]<class Kind>() { Kind::forward(p, a); });
  }
#ifdef RESNET_ISA_avx512fp16
  static constexpr bool kNative = true;
#else
  static constexpr bool kNative = false;
#endif
  static constexpr HalfConvKernels kernels = {B, kNative, packed_weight_bytes, pack_weights, scratch_bytes, forward};
};

}  // namespace resnet::simd::RESNET_ISA
