#pragma once
// The products of a micro kernel are R pixels by a panel of two blocks of outputs: all sums stay in registers, a weight
// is loaded for R multiply-adds and a pixel's channel for two. A kernel of 1x1 and stride 1 reads its pixels where they
// lie; every other reads windows, copied to [channel block][tap][R][B] for as many pixels as stay in the caches. The
// weights are read as they are stored, so nothing is packed and nothing kept.
//
//   for each block of pixels (its inputs stay in L2)
//     for each panel of outputs
//       for each kDepth blocks of the depth (their weights stay in L1)
//         for each group of kRows pixels: y (+)= x w, with bias and residual at the first, the ReLU at the last
//
// Threads share the pixels or, as a "team", the outputs, so that each weight is read from memory by one core only:
// where the weights are more than the images, unless the other deals out much more evenly. A sum's order follows from
// the depth alone.

#include <omp.h>

#include "backends/cpu/simd/ahead.h"
#include "backends/cpu/simd/conv2d_gemm.h"
#include "backends/cpu/simd/vec.h"

namespace resnet::simd::RESNET_ISA {

template <int B>
struct GemmConvolution {
  using V = Vec<B>;
  /// Pixels per micro kernel: 6 x 2 sums fill AVX2's 16 registers, 14 x 2 AVX-512's 32; 14 divides most of ResNet's
  /// maps.
  static constexpr int kRows = B == 16 ? 14 : 6;
  static constexpr int64_t kDepth = B == 16 ? 8 : 32;               ///< blocks, 16 KB of weights
  static constexpr int64_t kCache = B == 16 ? 1 << 20 : 300 << 10;  ///< bytes of a thread's block of pixels
  static constexpr int64_t kTile = static_cast<int64_t>(B) * B;     ///< floats of a block of weights

  /// One call of a micro kernel. Rows are pixels, B floats each.
  struct Product {
    const float* x;
    int64_t x_pitch;  ///< between blocks of the depth
    const float* w;   ///< [block][B in][B out]
    int64_t w_pitch;  ///< to the panel's second block of outputs
    int64_t blocks;
    float* y;
    int64_t y_pitch;    ///< to the panel's second block
    const float* add;   ///< laid out as y, added to the sums; or null
    const float* bias;  ///< of the panel, 2B; or null
    bool relu;
    Ahead next_w[2];  ///< weights that are wanted after these, by output block
    int64_t next_x;   ///< floats from this group's pixels to the next's, to be asked for; or 0
  };

  template <int R, int W>
  static __attribute__((noinline)) void product(Product& p) {
    V sum[R][W];
    RESNET_UNROLL
    for (int i = 0; i < R; ++i) {
      RESNET_UNROLL
      for (int j = 0; j < W; ++j) sum[i][j] = zero<B>();
    }
    for (int64_t block = 0; block < p.blocks; ++block) {
      const float *x = p.x + block * p.x_pitch, *w = p.w + block * kTile;
      for (Ahead& ahead : p.next_w) ahead.fetch();
      if (p.next_x != 0) {
        for (int i = 0; i < R * B; i += 16) __builtin_prefetch(x + p.next_x + i, 0, 2);
      }
      for (int c = 0; c < B; ++c) {
        V weight[W];
        RESNET_UNROLL
        for (int j = 0; j < W; ++j) weight[j] = load<B>(w + j * p.w_pitch + c * B);
        RESNET_UNROLL
        for (int i = 0; i < R; ++i) {
          const V value = splat<B>(x[i * B + c]);
          RESNET_UNROLL
          for (int j = 0; j < W; ++j) sum[i][j] += value * weight[j];
        }
      }
    }
    V bias[W];
    RESNET_UNROLL
    for (int j = 0; j < W; ++j) bias[j] = p.bias != nullptr ? load<B>(p.bias + j * B) : zero<B>();
    RESNET_UNROLL
    for (int i = 0; i < R; ++i) {
      RESNET_UNROLL
      for (int j = 0; j < W; ++j) {
        const int64_t at = j * p.y_pitch + i * B;
        V value = sum[i][j] + bias[j];
        if (p.add != nullptr) value += load<B>(p.add + at);
        if (p.relu) value = relu<B>(value);
        store<B>(p.y + at, value);
      }
    }
  }

  template <int R, int W>
  static void product_of(int64_t rows, Product& p) {
    if (rows == R) return product<R, W>(p);
    if constexpr (R > 1) product_of<R - 1, W>(rows, p);
  }

  /// Pixels that a micro kernel takes: of one image, so that y's rows are contiguous.
  struct Group {
    int64_t image, pixel, rows;
  };

  struct Plan {
    int64_t in_blocks, out_blocks, panels, taps, depth, pixels;
    int64_t image_groups, groups;  ///< of one image, of all
    bool copies;                   ///< windows
    bool team;
    int64_t block;  ///< groups at a time

    RESNET_INLINE explicit Plan(const GemmConv& p)
        : in_blocks(ceil_div(p.c, B)),
          out_blocks(ceil_div(p.k, B)),
          panels(ceil_div(out_blocks, 2)),
          taps(p.r * p.s),
          depth(in_blocks * taps),
          pixels(p.ho * p.wo),
          image_groups(ceil_div(pixels, kRows)),
          groups(p.n * image_groups),
          copies(taps > 1 || p.stride_h > 1 || p.stride_w > 1 || p.pad_h > 0 || p.pad_w > 0) {
      // How much more than an even share the busiest thread would get.
      const auto excess = [&](int64_t items) {
        return static_cast<double>(ceil_div(items, p.threads) * p.threads) / static_cast<double>(items);
      };
      constexpr double kMuch = 1.25;
      const bool heavy = out_blocks * depth * B > p.n * in_blocks * p.h * p.w;
      team =
          p.threads > 1 && (heavy ? excess(panels) <= kMuch * excess(groups) : excess(groups) > kMuch * excess(panels));
      const int64_t workers = team ? 1 : p.threads;
      const int64_t most = larger(kCache / (depth * B * kRows * 4), 1);
      block = ceil_div(groups, ceil_div(groups, most * workers) * workers);
    }
    RESNET_INLINE int64_t group_floats() const { return depth * kRows * B; }
    RESNET_INLINE Group group(int64_t g) const {
      const int64_t pixel = g % image_groups * kRows;
      return {g / image_groups, pixel, smaller(kRows, pixels - pixel)};
    }
  };

  /// Writes v[tap][row] of one channel block.
  static void copy_windows(const GemmConv& p, const Plan& plan, const Group& group, int64_t block, float* v) {
    int64_t top[kRows], left[kRows];
    for (int64_t i = 0; i < group.rows; ++i) {
      top[i] = (group.pixel + i) / p.wo * p.stride_h - p.pad_h;
      left[i] = (group.pixel + i) % p.wo * p.stride_w - p.pad_w;
    }
    const float* map = p.x + (group.image * plan.in_blocks + block) * p.h * p.w * B;
    for (int64_t r = 0; r < p.r; ++r) {
      for (int64_t s = 0; s < p.s; ++s, v += kRows * B) {
        for (int64_t i = 0; i < group.rows; ++i) {
          const int64_t y = top[i] + r * p.dilation_h, x = left[i] + s * p.dilation_w;
          const bool inside = y >= 0 && y < p.h && x >= 0 && x < p.w;
          store<B>(v + i * B, inside ? load<B>(map + (y * p.w + x) * B) : zero<B>());
        }
      }
    }
  }

  /// Groups [first, last), whose windows are at v if they are copied, for panels [p0, p1).
  static void multiply(const GemmConv& p, const Plan& plan, const float* v, int64_t first, int64_t last, int64_t p0,
                       int64_t p1) {
    Product call = {};
    call.x_pitch = plan.copies ? kRows * B : plan.pixels * B;
    call.w_pitch = plan.depth * kTile;
    call.y_pitch = plan.pixels * B;
    for (int64_t panel = p0; panel < p1; ++panel) {
      const bool whole = 2 * panel + 1 < plan.out_blocks;
      float bias[2 * B] = {};
      if (p.bias != nullptr) {
        const int64_t count = smaller(2 * B, p.k - panel * 2 * B);
        for (int64_t i = 0; i < count; ++i) bias[i] = p.bias[panel * 2 * B + i];
      }
      for (int64_t d = 0; d < plan.depth; d += kDepth) {
        const auto weights = [&](int64_t at_panel, int64_t at_depth) {
          return p.weights + (2 * at_panel * plan.depth + at_depth) * kTile;
        };
        call.w = weights(panel, d);
        call.blocks = smaller(kDepth, plan.depth - d);
        call.bias = p.bias != nullptr && d == 0 ? bias : nullptr;
        call.relu = p.relu && d + kDepth >= plan.depth;
        const bool deeper = d + kDepth < plan.depth, more = deeper || panel + 1 < p1;
        const int64_t next_panel = deeper ? panel : panel + 1, next_depth = deeper ? d + kDepth : 0;
        for (int64_t j = 0; j < 2; ++j) {
          const bool there = more && 2 * next_panel + j < plan.out_blocks;
          call.next_w[j] = Ahead(there ? weights(next_panel, next_depth) + j * call.w_pitch : nullptr,
                                 smaller(kDepth, plan.depth - next_depth) * kTile * 4, (last - first) * call.blocks);
        }
        for (int64_t g = first; g < last; ++g) {
          const Group group = plan.group(g);
          const int64_t map = group.image * plan.out_blocks + 2 * panel;
          call.x = plan.copies ? v + (g - first) * plan.group_floats() + d * kRows * B
                               : p.x + ((group.image * plan.in_blocks + d) * plan.pixels + group.pixel) * B;
          call.next_x = !plan.copies && panel == p0 && group.pixel + 2 * kRows <= plan.pixels ? kRows * B : 0;
          const int64_t at = (map * plan.pixels + group.pixel) * B;
          call.y = p.y + at;
          call.add = d > 0 ? call.y : p.residual != nullptr ? p.residual + at : nullptr;
          if (whole) {
            product_of<kRows, 2>(group.rows, call);
          } else {
            product_of<kRows, 1>(group.rows, call);
          }
        }
      }
    }
  }

  static size_t scratch_bytes(const GemmConv& p) {
    const Plan plan(p);
    if (!plan.copies) return 0;
    return static_cast<size_t>((plan.team ? 1 : p.threads) * plan.block * plan.group_floats()) * sizeof(float);
  }

  static void forward(const GemmConv& p) {
    const Plan plan(p);
#pragma omp parallel num_threads(p.threads)
    {
      const int me = omp_get_thread_num(), workers = omp_get_num_threads();
      const Range groups = share(plan.groups, plan.team ? 0 : me, plan.team ? 1 : workers);
      const Range panels = share(plan.panels, plan.team ? me : 0, plan.team ? workers : 1);
      float* v = static_cast<float*>(p.scratch);
      if (plan.copies && !plan.team) v += me * plan.block * plan.group_floats();
      for (int64_t first = groups.first; first < groups.last; first += plan.block) {
        const int64_t last = smaller(first + plan.block, groups.last);
        if (plan.copies) {
          const int64_t items = (last - first) * plan.in_blocks;
          const Range mine = plan.team ? share(items, me, workers) : Range{0, items};
          for (int64_t i = mine.first; i < mine.last; ++i) {
            const int64_t g = i / plan.in_blocks, block = i % plan.in_blocks;
            copy_windows(p, plan, plan.group(first + g), block,
                         v + g * plan.group_floats() + block * plan.taps * kRows * B);
          }
          if (plan.team) {
#pragma omp barrier
          }
        }
        multiply(p, plan, v, first, last, panels.first, panels.last);
        if (plan.copies && plan.team) {
#pragma omp barrier
        }
      }
    }
  }

  static constexpr GemmConvKernels kernels = {B, scratch_bytes, forward};
};

}  // namespace resnet::simd::RESNET_ISA
