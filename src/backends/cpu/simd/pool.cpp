// Pooling. Gradients are gathered: every element of dx is written once, from the few windows that
// cover it in a fixed order, so nothing needs zeroing or atomics.

#include "backends/cpu/simd/kernels.h"

namespace resnet::simd::RESNET_ISA {
namespace {

/// Lanes compared at a time: a register, as wider comparisons are not lowered well.
template <int B>
constexpr int kLanesOf = B < kNativeLanes ? B : kNativeLanes;

template <int L>
struct PoolVectors {
  typedef int32_t integers __attribute__((vector_size(L * 4)));
  typedef uint8_t bytes __attribute__((vector_size(L)));
  typedef uint8_t bytes_unaligned __attribute__((vector_size(L), aligned(1), may_alias));
};

/// The part of window `at` along one axis that lies inside the map: elements [first, last), of which
/// the first is the window's element `skipped`.
struct Span {
  int64_t first, last, skipped;
};
RESNET_INLINE Span window_span(int64_t at, int64_t kernel, int64_t stride, int64_t padding, int64_t extent) {
  const int64_t start = at * stride - padding;
  return {larger(start, 0), smaller(start + kernel, extent), larger(-start, 0)};
}

/// The windows [first, last) along one axis that cover an element; step() goes to the next element.
struct Covering {
  int64_t kernel, stride, padding, windows;
  int64_t element = 0, first = 0, last = 0;

  Covering(int64_t kernel_, int64_t stride_, int64_t padding_, int64_t windows_)
      : kernel(kernel_), stride(stride_), padding(padding_), windows(windows_) {
    find();
  }
  RESNET_INLINE void find() {
    while (last < windows && last * stride - padding <= element) ++last;
    while (first < last && first * stride - padding + kernel <= element) ++first;
  }
  RESNET_INLINE void step() {
    ++element;
    find();
  }
  /// Which element of window `at` the current one is.
  RESNET_INLINE int64_t position(int64_t at) const { return element + padding - at * stride; }
};

RESNET_INLINE int64_t map_bytes(const MapSize& size, int64_t B) {
  return size.N * ceil_div(size.C, B) * size.H * size.W * B * 4;
}

template <int B, bool Index>
void max_pool_map(const MaxPool& args, const float* x, float* y, uint8_t* index) {
  constexpr int L = kLanesOf<B>;
  using Int = typename PoolVectors<L>::integers;
  using Bytes = typename PoolVectors<L>::bytes;
  const PoolWindow& window = args.window;
  const int64_t W = args.size.W;
  const int32_t kernel_w = static_cast<int32_t>(window.kernel_w);
  for (int64_t ho = 0; ho < args.Ho; ++ho) {
    const Span rows = window_span(ho, window.kernel_h, window.stride_h, window.padding_h, args.size.H);
    for (int64_t wo = 0; wo < args.Wo; ++wo) {
      const Span columns = window_span(wo, window.kernel_w, window.stride_w, window.padding_w, W);
      const int32_t first = static_cast<int32_t>(rows.skipped * window.kernel_w + columns.skipped);
      for (int64_t lane = 0; lane < B; lane += L) {
        Vec<L> best = splat<L>(-__builtin_inff());
        Int winner = Int{} + first;
        int32_t row_position = first;
        for (int64_t h = rows.first; h < rows.last; ++h, row_position += kernel_w) {
          int32_t position = row_position;
          for (int64_t w = columns.first; w < columns.last; ++w, ++position) {
            const Vec<L> v = load<L>(x + (h * W + w) * B + lane);
            const Int takes = (v > best) | (v != v);
            best = takes ? v : best;
            if constexpr (Index) winner = takes ? Int{} + position : winner;
          }
        }
        const int64_t out = (ho * args.Wo + wo) * B + lane;
        store<L>(y + out, best);
        if constexpr (Index)
          *reinterpret_cast<typename PoolVectors<L>::bytes_unaligned*>(index + out) =
              __builtin_convertvector(winner, Bytes);
      }
    }
  }
}

template <int B>
void max_pool(const MaxPool& args) {
  const int64_t maps = args.size.N * ceil_div(args.size.C, B);
  const int64_t in = args.size.H * args.size.W * B, out = args.Ho * args.Wo * B;
#pragma omp parallel for schedule(static) num_threads(useful_threads(args.threads, map_bytes(args.size, B)))
  for (int64_t map = 0; map < maps; ++map) {
    if (args.index)
      max_pool_map<B, true>(args, args.x + map * in, args.y + map * out, args.index + map * out);
    else
      max_pool_map<B, false>(args, args.x + map * in, args.y + map * out, nullptr);
  }
}

template <int B>
void max_pool_backward_map(const MaxPoolBackward& args, const float* dy, const uint8_t* index, float* dx) {
  constexpr int L = kLanesOf<B>;
  using Int = typename PoolVectors<L>::integers;
  using Bytes = typename PoolVectors<L>::bytes_unaligned;
  const PoolWindow& window = args.window;
  Covering rows(window.kernel_h, window.stride_h, window.padding_h, args.Ho);
  for (int64_t h = 0; h < args.size.H; ++h, rows.step()) {
    Covering columns(window.kernel_w, window.stride_w, window.padding_w, args.Wo);
    for (int64_t w = 0; w < args.size.W; ++w, columns.step(), dx += B) {
      for (int64_t lane = 0; lane < B; lane += L) {
        Vec<L> sum = {};
        const Vec<L> nothing = {};
        for (int64_t ho = rows.first; ho < rows.last; ++ho) {
          const int64_t row_position = rows.position(ho) * window.kernel_w;
          for (int64_t wo = columns.first; wo < columns.last; ++wo) {
            const int64_t from = (ho * args.Wo + wo) * B + lane;
            const Int winner = __builtin_convertvector(*reinterpret_cast<const Bytes*>(index + from), Int);
            const Int here = Int{} + static_cast<int32_t>(row_position + columns.position(wo));
            sum += winner == here ? load<L>(dy + from) : nothing;
          }
        }
        store<L>(dx + lane, sum);
      }
    }
  }
}

template <int B>
void max_pool_backward(const MaxPoolBackward& args) {
  const int64_t maps = args.size.N * ceil_div(args.size.C, B);
  const int64_t in = args.size.H * args.size.W * B, out = args.Ho * args.Wo * B;
#pragma omp parallel for schedule(static) num_threads(useful_threads(args.threads, map_bytes(args.size, B)))
  for (int64_t map = 0; map < maps; ++map)
    max_pool_backward_map<B>(args, args.dy + map * out, args.index + map * out, args.dx + map * in);
}

/// What the sum over a window is divided by.
RESNET_INLINE float window_count(const AvgPool& args, const Span& rows, const Span& columns) {
  return static_cast<float>(args.count_padding ? args.window.kernel_h * args.window.kernel_w
                                               : (rows.last - rows.first) * (columns.last - columns.first));
}

template <int B>
void avg_pool(const AvgPool& args) {
  const PoolWindow& window = args.window;
  const int64_t maps = args.size.N * ceil_div(args.size.C, B), H = args.size.H, W = args.size.W;
#pragma omp parallel for schedule(static) num_threads(useful_threads(args.threads, map_bytes(args.size, B)))
  for (int64_t map = 0; map < maps; ++map) {
    const float* x = args.x + map * H * W * B;
    float* y = args.y + map * args.Ho * args.Wo * B;
    for (int64_t ho = 0; ho < args.Ho; ++ho) {
      const Span rows = window_span(ho, window.kernel_h, window.stride_h, window.padding_h, H);
      for (int64_t wo = 0; wo < args.Wo; ++wo, y += B) {
        const Span columns = window_span(wo, window.kernel_w, window.stride_w, window.padding_w, W);
        Vec<B> sum = {};
        for (int64_t h = rows.first; h < rows.last; ++h) {
          Vec<B> row = {};
          for (int64_t w = columns.first; w < columns.last; ++w) row += load<B>(x + (h * W + w) * B);
          sum += row;
        }
        store<B>(y, sum / splat<B>(window_count(args, rows, columns)));
      }
    }
  }
}

template <int B>
void avg_pool_backward(const AvgPool& args) {
  const PoolWindow& window = args.window;
  const int64_t maps = args.size.N * ceil_div(args.size.C, B), H = args.size.H, W = args.size.W;
#pragma omp parallel for schedule(static) num_threads(useful_threads(args.threads, map_bytes(args.size, B)))
  for (int64_t map = 0; map < maps; ++map) {
    const float* dy = args.x + map * args.Ho * args.Wo * B;
    float* dx = args.y + map * H * W * B;
    Covering rows(window.kernel_h, window.stride_h, window.padding_h, args.Ho);
    for (int64_t h = 0; h < H; ++h, rows.step()) {
      Covering columns(window.kernel_w, window.stride_w, window.padding_w, args.Wo);
      for (int64_t w = 0; w < W; ++w, columns.step(), dx += B) {
        Vec<B> sum = {};
        for (int64_t ho = rows.first; ho < rows.last; ++ho) {
          const Span row_span = window_span(ho, window.kernel_h, window.stride_h, window.padding_h, H);
          for (int64_t wo = columns.first; wo < columns.last; ++wo) {
            const Span column_span = window_span(wo, window.kernel_w, window.stride_w, window.padding_w, W);
            sum += load<B>(dy + (ho * args.Wo + wo) * B) / splat<B>(window_count(args, row_span, column_span));
          }
        }
        store<B>(dx, sum);
      }
    }
  }
}

template <int B>
void global_avg_pool(const AvgPool& args) {
  const int64_t maps = args.size.N * ceil_div(args.size.C, B), pixels = args.size.H * args.size.W;
#pragma omp parallel for schedule(static) num_threads(useful_threads(args.threads, map_bytes(args.size, B)))
  for (int64_t map = 0; map < maps; ++map) {
    const float* x = args.x + map * pixels * B;
    double sum[B] = {};
    for (int64_t p = 0; p < pixels; p += kRun) add_to<B>(sum, sum_of_run<B>(x + p * B, smaller(kRun, pixels - p)));
    for (int b = 0; b < B; ++b) args.y[map * B + b] = static_cast<float>(sum[b] / static_cast<double>(pixels));
  }
}

template <int B>
void global_avg_pool_backward(const AvgPool& args) {
  const int64_t maps = args.size.N * ceil_div(args.size.C, B), pixels = args.size.H * args.size.W;
#pragma omp parallel for schedule(static) num_threads(useful_threads(args.threads, map_bytes(args.size, B)))
  for (int64_t map = 0; map < maps; ++map) {
    const Vec<B> even = load<B>(args.x + map * B) / splat<B>(static_cast<float>(pixels));
    float* dx = args.y + map * pixels * B;
    for (int64_t p = 0; p < pixels; ++p) store<B>(dx + p * B, even);
  }
}

}  // namespace

template <int B>
void add_pool(SimdKernels& table) {
  table.max_pool = max_pool<B>;
  table.max_pool_backward = max_pool_backward<B>;
  table.avg_pool = avg_pool<B>;
  table.avg_pool_backward = avg_pool_backward<B>;
  table.global_avg_pool = global_avg_pool<B>;
  table.global_avg_pool_backward = global_avg_pool_backward<B>;
}
template void add_pool<8>(SimdKernels&);
template void add_pool<16>(SimdKernels&);

}  // namespace resnet::simd::RESNET_ISA
