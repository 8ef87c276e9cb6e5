// Batch normalisation: statistics, apply with an optional addition and ReLU, and the gradient.
//
// These kernels do little arithmetic, so their cost is the bytes they move. Forward and backward
// need two passes over a channel's whole batch; where the batch of a few channel blocks fits the
// cache they run both passes on those blocks before the next ones, and every thread walks back over
// its own items in the second pass, newest first, so that what is still cached is used.

#include <math.h>

#include "backends/cpu/simd/kernels.h"

namespace resnet::simd::RESNET_ISA {
namespace {

/// What a group of channel blocks may occupy between two passes: part of a shared last-level cache.
constexpr int64_t kCacheBytes = 12 << 20;

/// Which items (part of the batch, channel block) a team works on, and in which order.
template <int B>
struct Schedule {
  MapSize size;
  Parts parts;
  int64_t pixels, blocks;
  int64_t group;  ///< channel blocks taken through both passes together
  int threads;

  /// `tensors` are those the second pass reads or writes again; 0 without a second pass.
  Schedule(const MapSize& size_, int threads_, int64_t tensors)
      : size(size_), parts(parts_of(size_)), pixels(size_.H * size_.W), blocks(ceil_div(size_.C, B)) {
    const int64_t block_bytes = size.N * pixels * B * 4;
    const int64_t fitting = kCacheBytes / larger(1, block_bytes * tensors);
    // Where there is nothing to keep or one block is too large to be kept, groups would only make
    // the memory accesses jump.
    group = tensors == 0 || fitting == 0 ? blocks : smaller(fitting, blocks);
    threads = useful_threads(threads_, block_bytes * blocks);
  }

  int64_t bytes() const { return size.N * blocks * pixels * B * 4; }
  int64_t last_image(int64_t part) const { return smaller(size.N, (part + 1) * parts.images); }
  int64_t offset(int64_t n, int64_t block) const { return (n * blocks + block) * pixels * B; }
  /// Partial sums are [part][block][2][B].
  int64_t partial(int64_t part, int64_t block) const { return (part * blocks + block) * 2 * B; }
  int64_t partials() const { return parts.count * blocks * 2 * B; }

  /// Calls f(part, first block, last block) for the calling thread's items of the group
  /// [first, last): runs of neighbouring blocks, which are neighbours in memory.
  template <class F>
  RESNET_INLINE void for_items(int64_t first, int64_t last, const F& f) const {
    const int64_t width = last - first;
    const Range items = share(parts.count * width, omp_get_thread_num(), omp_get_num_threads());
    for (int64_t i = items.first; i < items.last;) {
      const int64_t block = i % width, end = smaller(width, block + items.last - i);
      f(i / width, first + block, first + end);
      i += end - block;
    }
  }
  template <class F>
  RESNET_INLINE void for_items_backwards(int64_t first, int64_t last, const F& f) const {
    const int64_t width = last - first;
    const Range items = share(parts.count * width, omp_get_thread_num(), omp_get_num_threads());
    for (int64_t i = items.last; i > items.first;) {
      const int64_t end = (i - 1) % width + 1, block = larger(0, end - (i - items.first));
      f((i - 1) / width, first + block, first + end);
      i -= end - block;
    }
  }

  /// The two sums of channel c over all parts, in order.
  RESNET_INLINE void total(const double* sums, int64_t c, double& a, double& b) const {
    const double* p = sums + partial(0, c / B) + c % B;
    a = b = 0;
    for (int64_t part = 0; part < parts.count; ++part, p += blocks * 2 * B) {
      a += p[0];
      b += p[B];
    }
  }
};

RESNET_INLINE double inverse_deviation(float variance, float eps) {
  return 1.0 / sqrt(static_cast<double>(variance) + static_cast<double>(eps));
}

/// sum[b] and square[b] gain the sum and the sum of squares of x over an image. The squares of a
/// run are taken about its own mean, which stays in the first-level cache for the second look;
/// adding sum^2 / pixels in double then loses nothing.
template <int B>
void add_moments(const float* x, int64_t pixels, double* sum, double* square) {
  for (int64_t first = 0; first < pixels; first += kRun) {
    const int64_t count = smaller(kRun, pixels - first);
    const float* run = x + first * B;
    const Vec<B> total = sum_of_run<B>(run, count);
    const Vec<B> mean = total * splat<B>(1.0f / static_cast<float>(count));
    Vec<B> squares[4] = {};
    int64_t p = 0;
    for (; p + 4 <= count; p += 4) {
      // The next run, which nothing else asks memory for while this one is looked at again.
      RESNET_UNROLL
      for (int line = 0; line < B * 4 / 16; ++line) __builtin_prefetch(run + (kRun + p) * B + line * 16);
      RESNET_UNROLL
      for (int i = 0; i < 4; ++i) {
        const Vec<B> d = load<B>(run + (p + i) * B) - mean;
        squares[i] += d * d;
      }
    }
    for (; p < count; ++p) {
      const Vec<B> d = load<B>(run + p * B) - mean;
      squares[0] += d * d;
    }
    float totals[B], lanes[B];
    store<B>(totals, total);
    store<B>(lanes, (squares[0] + squares[1]) + (squares[2] + squares[3]));
    const double inverse = 1.0 / static_cast<double>(count);
    for (int b = 0; b < B; ++b) {
      const double t = static_cast<double>(totals[b]);
      sum[b] += t;
      square[b] += static_cast<double>(lanes[b]) + t * t * inverse;
    }
  }
}

/// What a channel block needs to be normalised.
template <int B>
struct Affine {
  Vec<B> mean, scale, beta;
};

template <int B, bool Residual, bool Relu, bool Stream>
void apply_block(const float* x, const float* residual, float* y, int64_t pixels, const Affine<B>& affine) {
  for (int64_t i = 0; i < pixels * B; i += B) {
    // Subtracting the mean first keeps the digits that x * scale + shift would lose.
    Vec<B> v = (load<B>(x + i) - affine.mean) * affine.scale + affine.beta;
    if constexpr (Residual) v += load<B>(residual + i);
    if constexpr (Relu) v = RESNET_ISA::relu<B>(v);
    Stream ? store_streaming<B>(y + i, v) : store<B>(y + i, v);
  }
}

template <int B, bool Stream>
RESNET_INLINE auto choose_apply(bool residual, bool relu) {
  return residual ? (relu ? apply_block<B, true, true, Stream> : apply_block<B, true, false, Stream>)
                  : (relu ? apply_block<B, false, true, Stream> : apply_block<B, false, false, Stream>);
}

/// args.mean and args.variance are outputs of the statistics, or inputs without them.
template <int B>
void forward(const BatchNormTraining& args, bool statistics) {
  const int64_t tensors = args.residual ? 3 : 2;
  const Schedule<B> schedule(args.size, args.threads, statistics ? tensors : 0);
  const int64_t C = args.size.C, pixels = schedule.pixels;
  double* sums = static_cast<double*>(args.scratch);
  float* scales = reinterpret_cast<float*>(sums + schedule.partials());  // [blocks * B]
  const double inverse_count = 1.0 / static_cast<double>(args.size.N * pixels);
  const bool stream = args.y != args.x && args.y != args.residual && worth_streaming(args.y, schedule.bytes());
  const auto apply_any = stream ? choose_apply<B, true>(args.residual != nullptr, args.relu)
                                : choose_apply<B, false>(args.residual != nullptr, args.relu);
#pragma omp parallel num_threads(schedule.threads)
  for (int64_t first = 0; first < schedule.blocks; first += schedule.group) {
    const int64_t last = smaller(schedule.blocks, first + schedule.group);
    if (statistics) {
      schedule.for_items(first, last, [&](int64_t part, int64_t begin, int64_t end) {
        for (int64_t i = schedule.partial(part, begin); i < schedule.partial(part, end); ++i) sums[i] = 0;
        for (int64_t n = part * schedule.parts.images; n < schedule.last_image(part); ++n)
          for (int64_t block = begin; block < end; ++block) {
            double* sum = sums + schedule.partial(part, block);
            add_moments<B>(args.x + schedule.offset(n, block), pixels, sum, sum + B);
          }
      });
#pragma omp barrier
    }
#pragma omp for schedule(static)
    for (int64_t c = first * B; c < last * B; ++c) {
      scales[c] = 0;
      if (c >= C) continue;
      if (statistics) {
        double sum, square;
        schedule.total(sums, c, sum, square);
        const double mean = sum * inverse_count, variance = square * inverse_count - mean * mean;
        args.mean[c] = static_cast<float>(mean);
        // NaN must stay NaN; only a rounding below zero becomes zero.
        args.variance[c] = variance < 0 ? 0.0f : static_cast<float>(variance);
      }
      scales[c] =
          static_cast<float>(static_cast<double>(args.gamma[c]) * inverse_deviation(args.variance[c], args.eps));
    }
    schedule.for_items_backwards(first, last, [&](int64_t part, int64_t begin, int64_t end) {
      for (int64_t n = schedule.last_image(part) - 1; n >= part * schedule.parts.images; --n)
        for (int64_t block = begin; block < end; ++block) {
          const int64_t at = schedule.offset(n, block), channel = block * B;
          const Affine<B> affine = {load_channels<B>(args.mean, channel, C), load<B>(scales + channel),
                                    load_channels<B>(args.beta, channel, C)};
          apply_any(args.x + at, args.residual ? args.residual + at : nullptr, args.y + at, pixels, affine);
        }
      if (stream) end_streaming();
    });
  }
}

template <int B>
void batch_norm_apply(const BatchNormApply& args) {
  forward<B>({.size = args.size,
              .x = args.x,
              .gamma = args.gamma,
              .beta = args.beta,
              .residual = args.residual,
              .mean = const_cast<float*>(args.mean),  // only read without statistics
              .variance = const_cast<float*>(args.variance),
              .y = args.y,
              .eps = args.eps,
              .relu = args.relu,
              .scratch = args.scratch,
              .threads = args.threads},
             /*statistics=*/false);
}

template <int B>
void batch_norm_training(const BatchNormTraining& args) {
  forward<B>(args, /*statistics=*/true);
}

/// dy where the forward's ReLU let y through.
template <int B, bool Relu>
RESNET_INLINE Vec<B> masked(const float* dy, const float* y) {
  if constexpr (!Relu) {
    return load<B>(dy);
  } else if constexpr (B > kNativeLanes) {
    union {
      Vec<B / 2> half[2];
      Vec<B> whole;
    } u = {{masked<B / 2, Relu>(dy, y), masked<B / 2, Relu>(dy + B / 2, y + B / 2)}};
    return u.whole;
  } else {
    const Vec<B> nothing = {};
    return load<B>(y) > nothing ? load<B>(dy) : nothing;
  }
}

/// First pass over an image: sum_g += g, sum_gx += g * (x - mean); keeps g in dresidual.
template <int B, bool Relu, bool Residual>
void add_gradients(const float* dy, const float* x, const float* y, float* dresidual, int64_t pixels, Vec<B> mean,
                   double* sum_g, double* sum_gx) {
  for (int64_t first = 0; first < pixels; first += kRun) {
    const int64_t last = smaller(pixels, first + kRun);
    Vec<B> g_sums[2] = {}, gx_sums[2] = {};
    const auto add = [&](int64_t p, int chain) __attribute__((always_inline)) {
      const Vec<B> g = masked<B, Relu>(dy + p * B, y + p * B);
      if constexpr (Residual) store<B>(dresidual + p * B, g);
      g_sums[chain] += g;
      gx_sums[chain] += g * (load<B>(x + p * B) - mean);
    };
    int64_t p = first;
    for (; p + 2 <= last; p += 2) {
      add(p, 0);
      add(p + 1, 1);
    }
    if (p < last) add(p, 0);
    add_to<B>(sum_g, g_sums[0] + g_sums[1]);
    add_to<B>(sum_gx, gx_sums[0] + gx_sums[1]);
  }
}

/// Second pass: dx = scale * (g - mean_g - (x - mean) * slope).
template <int B>
struct GradientCoefficients {
  Vec<B> mean, scale, mean_g, slope;
};

template <int B, bool Relu, bool Stream>
void gradient_block(const float* dy, const float* x, const float* y, float* dx, int64_t pixels,
                    const GradientCoefficients<B>& k) {
  for (int64_t i = 0; i < pixels * B; i += B) {
    const Vec<B> g = masked<B, Relu>(dy + i, y + i);
    const Vec<B> v = k.scale * ((g - k.mean_g) - (load<B>(x + i) - k.mean) * k.slope);
    Stream ? store_streaming<B>(dx + i, v) : store<B>(dx + i, v);
  }
}

template <int B>
void batch_norm_backward(const BatchNormBackward& args) {
  const bool relu = args.y != nullptr, residual = args.dresidual != nullptr;
  const Schedule<B> schedule(args.size, args.threads, args.dx ? 2 + (relu ? 1 : 0) + (residual ? 1 : 0) : 0);
  const int64_t C = args.size.C, pixels = schedule.pixels;
  double* sums = static_cast<double*>(args.scratch);
  float* scales = reinterpret_cast<float*>(sums + schedule.partials());  // [blocks * B] each
  float* mean_gs = scales + schedule.blocks * B;
  float* slopes = mean_gs + schedule.blocks * B;
  const double inverse_count = 1.0 / static_cast<double>(args.size.N * pixels);
  const auto add_any = relu ? (residual ? add_gradients<B, true, true> : add_gradients<B, true, false>)
                            : (residual ? add_gradients<B, false, true> : add_gradients<B, false, false>);
  // The first pass has left g in dresidual, if there is one.
  const float* g_from = residual ? args.dresidual : args.dy;
  const bool stream = args.dx != args.dy && worth_streaming(args.dx, schedule.bytes());
  const auto gradient_any = relu && !residual
                                ? (stream ? gradient_block<B, true, true> : gradient_block<B, true, false>)
                                : (stream ? gradient_block<B, false, true> : gradient_block<B, false, false>);
#pragma omp parallel num_threads(schedule.threads)
  for (int64_t first = 0; first < schedule.blocks; first += schedule.group) {
    const int64_t last = smaller(schedule.blocks, first + schedule.group);
    schedule.for_items(first, last, [&](int64_t part, int64_t begin, int64_t end) {
      for (int64_t i = schedule.partial(part, begin); i < schedule.partial(part, end); ++i) sums[i] = 0;
      for (int64_t n = part * schedule.parts.images; n < schedule.last_image(part); ++n)
        for (int64_t block = begin; block < end; ++block) {
          const int64_t at = schedule.offset(n, block);
          double* sum = sums + schedule.partial(part, block);
          add_any(args.dy + at, args.x + at, (relu ? args.y : args.x) + at, residual ? args.dresidual + at : nullptr,
                  pixels, load_channels<B>(args.mean, block * B, C), sum, sum + B);
        }
    });
#pragma omp barrier
#pragma omp for schedule(static)
    for (int64_t c = first * B; c < last * B; ++c) {
      scales[c] = mean_gs[c] = slopes[c] = 0;
      if (c >= C) continue;
      double sum_g, sum_gx;
      schedule.total(sums, c, sum_g, sum_gx);
      const double inverse = inverse_deviation(args.variance[c], args.eps);
      args.dbeta[c] = static_cast<float>(sum_g);
      args.dgamma[c] = static_cast<float>(sum_gx * inverse);
      scales[c] = static_cast<float>(static_cast<double>(args.gamma[c]) * inverse);
      if (args.training) {
        mean_gs[c] = static_cast<float>(sum_g * inverse_count);
        slopes[c] = static_cast<float>(sum_gx * inverse * inverse * inverse_count);
      }
    }
    if (args.dx)
      schedule.for_items_backwards(first, last, [&](int64_t part, int64_t begin, int64_t end) {
        for (int64_t n = schedule.last_image(part) - 1; n >= part * schedule.parts.images; --n)
          for (int64_t block = begin; block < end; ++block) {
            const int64_t at = schedule.offset(n, block), channel = block * B;
            const GradientCoefficients<B> k = {load_channels<B>(args.mean, channel, C), load<B>(scales + channel),
                                               load<B>(mean_gs + channel), load<B>(slopes + channel)};
            gradient_any(g_from + at, args.x + at, (relu ? args.y : args.x) + at, args.dx + at, pixels, k);
          }
        if (stream) end_streaming();
      });
  }
}

}  // namespace

template <int B>
void add_batch_norm(SimdKernels& table) {
  table.batch_norm_apply = batch_norm_apply<B>;
  table.batch_norm_training = batch_norm_training<B>;
  table.batch_norm_backward = batch_norm_backward<B>;
}
template void add_batch_norm<8>(SimdKernels&);
template void add_batch_norm<16>(SimdKernels&);

}  // namespace resnet::simd::RESNET_ISA
