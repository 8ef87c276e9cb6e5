// Pooling. Gradients are gathered: every element of dx is written once, from the few windows that
// cover it in a fixed order, so nothing needs zeroing or atomics.

#ifdef __AVX2__
#include <immintrin.h>
#endif

#include "backends/cpu/simd/kernels.h"

namespace resnet::simd::RESNET_ISA {
namespace {

/// Lanes compared at a time: a register, as wider comparisons are not lowered well.
template <int B>
constexpr int kLanesOf = B < kNativeLanes ? B : kNativeLanes;

template <int L>
struct IntVectorOf {
  typedef int32_t type __attribute__((vector_size(L * 4)));
};
template <int L>
using IntVector = typename IntVectorOf<L>::type;

/// Between L bytes and L integers in [0, 256). By intrinsics, since compilers go through scalars (and
/// masked, since GCC 12 warns about its own headers otherwise).
template <int L>
RESNET_INLINE IntVector<L> widen(const uint8_t* p) {
#ifdef RESNET_AVX512
  if constexpr (L == 16) return (IntVector<L>)_mm512_maskz_cvtepu8_epi32(0xffff, _mm_loadu_si128((const __m128i*)p));
#endif
#ifdef __AVX2__
  if constexpr (L == 8) return (IntVector<L>)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p));
#endif
  IntVector<L> v = {};
  for (int i = 0; i < L; ++i) v[i] = p[i];
  return v;
}
template <int L>
RESNET_INLINE void narrow(uint8_t* p, IntVector<L> v) {
#ifdef RESNET_AVX512
  if constexpr (L == 16) return _mm_storeu_si128((__m128i*)p, _mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)v));
#endif
#ifdef __AVX2__
  if constexpr (L == 8) {
    const __m128i pairs = _mm_packs_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1));
    return _mm_storel_epi64((__m128i*)p, _mm_packus_epi16(pairs, pairs));
  }
#endif
  for (int i = 0; i < L; ++i) p[i] = static_cast<uint8_t>(v[i]);
}

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

/// One output of a window over `rows` and `columns` elements from `x`, by the rule for every case:
/// the first largest, or the last NaN. `first` is the position of the first element.
template <int L, bool Index>
RESNET_INLINE void max_of_window(const float* x, int64_t rows, int64_t columns, int64_t row_step, int64_t step,
                                 int32_t first, int32_t kernel_w, float* y, uint8_t* index) {
  Vec<L> best = splat<L>(-__builtin_inff());
  IntVector<L> winner = IntVector<L>{} + first;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t s = 0; s < columns; ++s) {
      const Vec<L> v = load<L>(x + r * row_step + s * step);
      const IntVector<L> takes = (v > best) | (v != v);
      best = takes ? v : best;
      if constexpr (Index) {
        const int32_t position = first + static_cast<int32_t>(r) * kernel_w + static_cast<int32_t>(s);
        winner = takes ? IntVector<L>{} + position : winner;
      }
    }
  store<L>(y, best);
  if constexpr (Index) narrow<L>(index, winner);
}

/// The same for a full square window without NaN: the maximum, then who equals it. `suspect` becomes
/// NaN where the window holds a NaN (or an infinity), and then the result does not count.
template <int L, bool Index, int Kernel>
RESNET_INLINE void max_of_square(const float* x, int64_t row_step, int64_t step, float* y, uint8_t* index,
                                 Vec<L> (&suspect)[Kernel]) {
  Vec<L> best = load<L>(x);
  RESNET_UNROLL
  for (int r = 0; r < Kernel; ++r) {
    RESNET_UNROLL
    for (int s = 0; s < Kernel; ++s) {
      const Vec<L> v = load<L>(x + r * row_step + s * step);
      suspect[s] += v * Vec<L>{};
      best = v > best ? v : best;
    }
  }
  store<L>(y, best);
  if constexpr (Index) {
    IntVector<L> winner = {};
    RESNET_UNROLL
    for (int i = Kernel * Kernel - 1; i > 0; --i) {
      const Vec<L> v = load<L>(x + i / Kernel * row_step + i % Kernel * step);
      winner = v == best ? IntVector<L>{} + i : winner;
    }
    const Vec<L> v = load<L>(x);
    winner = v == best ? IntVector<L>{} : winner;
    narrow<L>(index, winner);
  }
}

template <int L, int Kernel>
RESNET_INLINE bool any_nan(const Vec<L> (&suspect)[Kernel]) {
  float lanes[L];
  Vec<L> sum = suspect[0];
  for (int s = 1; s < Kernel; ++s) sum += suspect[s];
  store<L>(lanes, sum);
  bool any = false;
  for (float lane : lanes) any |= lane != lane;
  return any;
}

/// Kernel > 0: square windows of that size have a fast way where they lie inside the map.
template <int B, bool Index, int Kernel>
void max_pool_map(const MaxPool& args, const float* x, float* y, uint8_t* index) {
  constexpr int L = kLanesOf<B>;
  const PoolWindow& window = args.window;
  const int64_t W = args.size.W, row_step = W * B;
  const int32_t kernel_w = static_cast<int32_t>(window.kernel_w);
  for (int64_t ho = 0; ho < args.Ho; ++ho) {
    const Span rows = window_span(ho, window.kernel_h, window.stride_h, window.padding_h, args.size.H);
    bool fast = Kernel > 0 && rows.last - rows.first == Kernel;
    Vec<L> suspect[Kernel > 0 ? Kernel : 1] = {};
    for (int64_t wo = 0; wo < args.Wo; ++wo) {
      const Span columns = window_span(wo, window.kernel_w, window.stride_w, window.padding_w, W);
      const float* corner = x + rows.first * row_step + columns.first * B;
      const int64_t out = (ho * args.Wo + wo) * B;
      for (int64_t lane = 0; lane < B; lane += L) {
        uint8_t* to_index = Index ? index + out + lane : nullptr;
        if constexpr (Kernel > 0) {
          if (fast && columns.last - columns.first == Kernel) {
            max_of_square<L, Index, Kernel>(corner + lane, row_step, B, y + out + lane, to_index, suspect);
            continue;
          }
        }
        max_of_window<L, Index>(corner + lane, rows.last - rows.first, columns.last - columns.first, row_step, B,
                                static_cast<int32_t>(rows.skipped) * kernel_w + static_cast<int32_t>(columns.skipped),
                                kernel_w, y + out + lane, to_index);
      }
      if constexpr (Kernel > 0) {
        if (wo == args.Wo - 1 && fast && any_nan<L, Kernel>(suspect)) {
          fast = false;
          wo = -1;  // the row again, by the rule for every case
        }
      }
    }
  }
}

template <int B, bool Index>
void max_pool_maps(const MaxPool& args) {
  const int64_t maps = args.size.N * ceil_div(args.size.C, B);
  const int64_t in = args.size.H * args.size.W * B, out = args.Ho * args.Wo * B;
  const int64_t square = args.window.kernel_h == args.window.kernel_w ? args.window.kernel_h : 0;
  const auto pool = square == 3   ? max_pool_map<B, Index, 3>
                    : square == 2 ? max_pool_map<B, Index, 2>
                                  : max_pool_map<B, Index, 0>;
#pragma omp parallel for schedule(static) num_threads(useful_threads(args.threads, map_bytes(args.size, B)))
  for (int64_t map = 0; map < maps; ++map)
    pool(args, args.x + map * in, args.y + map * out, Index ? args.index + map * out : nullptr);
}

template <int B>
void max_pool(const MaxPool& args) {
  return args.index ? max_pool_maps<B, true>(args) : max_pool_maps<B, false>(args);
}

/// The gradient of one window, of which each element takes the lanes it has won.
template <int L>
struct WindowGradient {
  IntVector<L> winner;
  Vec<L> dy;

  RESNET_INLINE Vec<L> of(int32_t position) const {
    const Vec<L> nothing = {};
    return winner == IntVector<L>{} + position ? dy : nothing;
  }
};

template <int B>
void max_pool_backward_map(const MaxPoolBackward& args, const float* dy, const uint8_t* index, float* dx) {
  constexpr int L = kLanesOf<B>;
  const PoolWindow& window = args.window;
  Covering rows(window.kernel_h, window.stride_h, window.padding_h, args.Ho);
  for (int64_t h = 0; h < args.size.H; ++h, rows.step()) {
    Covering columns(window.kernel_w, window.stride_w, window.padding_w, args.Wo);
    for (int64_t w = 0; w < args.size.W; ++w, columns.step(), dx += B) {
      for (int64_t lane = 0; lane < B; lane += L) {
        Vec<L> sum = {};
        for (int64_t ho = rows.first; ho < rows.last; ++ho) {
          const int64_t row_position = rows.position(ho) * window.kernel_w;
          for (int64_t wo = columns.first; wo < columns.last; ++wo) {
            const int64_t from = (ho * args.Wo + wo) * B + lane;
            const WindowGradient<L> gradient = {widen<L>(index + from), load<L>(dy + from)};
            sum += gradient.of(static_cast<int32_t>(row_position + columns.position(wo)));
          }
        }
        store<L>(dx + lane, sum);
      }
    }
  }
}

/// ResNet's window, 3x3 stride 2 padding 1: the two by two elements at (2 ho, 2 wo) belong to at most
/// four windows, those at ho, ho + 1 and wo, wo + 1.
template <int B, bool Stream>
void max_pool_backward_map_3x3s2(const MaxPoolBackward& args, const float* dy, const uint8_t* index, float* dx) {
  constexpr int L = kLanesOf<B>;
  const int64_t H = args.size.H, W = args.size.W;
  const auto window = [&](int64_t ho, int64_t wo, int64_t lane) __attribute__((always_inline)) {
    const int64_t from = (ho * args.Wo + wo) * B + lane;
    if (ho < args.Ho && wo < args.Wo) return WindowGradient<L>{widen<L>(index + from), load<L>(dy + from)};
    return WindowGradient<L>{};
  };
  const auto put = [](float* to, Vec<L> v) __attribute__((always_inline)) {
    Stream ? store_streaming<L>(to, v) : store<L>(to, v);
  };
  for (int64_t ho = 0; ho < args.Ho; ++ho)
    for (int64_t lane = 0; lane < B; lane += L) {
      WindowGradient<L> here = window(ho, 0, lane), below = window(ho + 1, 0, lane);
      for (int64_t wo = 0; wo < args.Wo; ++wo) {
        const WindowGradient<L> right = window(ho, wo + 1, lane), diagonal = window(ho + 1, wo + 1, lane);
        float* to = dx + (2 * ho * W + 2 * wo) * B + lane;
        const bool has_right = 2 * wo + 1 < W, has_below = 2 * ho + 1 < H;
        put(to, here.of(4));
        if (has_right) put(to + B, here.of(5) + right.of(3));
        if (has_below) put(to + W * B, here.of(7) + below.of(1));
        if (has_right && has_below) put(to + (W + 1) * B, here.of(8) + right.of(6) + below.of(2) + diagonal.of(0));
        here = right;
        below = diagonal;
      }
    }
}

template <int B>
void max_pool_backward(const MaxPoolBackward& args) {
  const int64_t maps = args.size.N * ceil_div(args.size.C, B);
  const int64_t in = args.size.H * args.size.W * B, out = args.Ho * args.Wo * B;
  const PoolWindow& w = args.window;
  const bool resnet =
      w.kernel_h == 3 && w.kernel_w == 3 && w.stride_h == 2 && w.stride_w == 2 && w.padding_h == 1 && w.padding_w == 1;
  // A register must hold a block, or lines would be streamed in pieces.
  const bool stream = resnet && kLanesOf<B> == B && worth_streaming(args.dx, map_bytes(args.size, B));
  const auto gradient = stream   ? max_pool_backward_map_3x3s2<B, true>
                        : resnet ? max_pool_backward_map_3x3s2<B, false>
                                 : max_pool_backward_map<B>;
#pragma omp parallel num_threads(useful_threads(args.threads, map_bytes(args.size, B)))
  {
#pragma omp for schedule(static) nowait
    for (int64_t map = 0; map < maps; ++map)
      gradient(args, args.dy + map * out, args.index + map * out, args.dx + map * in);
    if (stream) end_streaming();
  }
}

/// What the sum over a window is divided by. A window may pass the padded edge (ceil mode): what is behind it is none.
RESNET_INLINE float window_count(const AvgPool& args, const Span& rows, const Span& columns) {
  const PoolWindow& w = args.window;
  const auto padded = [](const Span& span, int64_t kernel, int64_t padding, int64_t extent) {
    return smaller(kernel, extent + padding - (span.first - span.skipped));
  };
  return static_cast<float>(args.count_padding ? padded(rows, w.kernel_h, w.padding_h, args.size.H) *
                                                     padded(columns, w.kernel_w, w.padding_w, args.size.W)
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
