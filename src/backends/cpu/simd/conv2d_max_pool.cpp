// The rows of the convolution that a row of windows covers are the only ones there are at a time: its map, 3 MB an
// image for ResNet's stem, is neither written nor read. A thread makes two blocks of channels of one image (or a band
// of its rows). It copies each row of the image once into a ring of R padded rows a channel, so that the inner loop
// knows no edges, and keeps the last rows of the convolution in a second ring.

#include "backends/cpu/simd/conv2d_max_pool.h"

#include <omp.h>

#include "backends/cpu/simd/vec.h"

namespace resnet::simd::RESNET_ISA {

extern const StemForwardKernels stem_forward;

namespace {

constexpr int B = kBlock;
using V = Vec<B>;
/// Columns at a time: with two blocks of channels, 6 x 2 accumulators fill AVX2's 16 registers, 14 x 2 AVX-512's 32,
/// and 112 columns, ImageNet's, leave no rest.
constexpr int kColumns = B == 16 ? 14 : 6;

int64_t pairs_of(const StemForward& p) { return ceil_div(ceil_div(p.K, B), 2); }
int64_t taps_of(const StemForward& p) { return p.C * p.R * p.S; }

/// Floats of the parts of a thread's scratch.
struct Sizes {
  int64_t pitch;  ///< of a padded row of the image
  int64_t image, zeros, map, all;
  explicit Sizes(const StemForward& p)
      : pitch(round_up((p.Wo - 1) * p.stride + p.S, 16)),
        image(p.C * p.R * pitch),
        zeros(pitch),
        map(round_up(p.pool_kernel * 2 * p.Wo * B, 16)),
        all(image + zeros + map) {}
};

size_t packed_bytes(const StemForward& p) {
  return static_cast<size_t>(pairs_of(p) * taps_of(p) * 2 * B) * sizeof(float);
}

/// [pair of blocks][c][r][s][2B], zeros where there is no channel.
void pack(const StemForward& p, const float* w, float* packed) {
  const int64_t taps = taps_of(p);
  for (int64_t pair = 0; pair < pairs_of(p); ++pair) {
    for (int64_t tap = 0; tap < taps; ++tap) {
      for (int64_t lane = 0; lane < 2 * B; ++lane) {
        const int64_t k = pair * 2 * B + lane;
        *packed++ = k < p.K ? w[k * taps + tap] : 0.0f;
      }
    }
  }
}

size_t scratch_bytes(const StemForward& p) { return static_cast<size_t>(Sizes(p).all * p.threads) * sizeof(float); }

/// Lane by lane the larger; a NaN wins.
template <int L>
RESNET_INLINE Vec<L> larger_of(const Vec<L>& a, const Vec<L>& b) {
  if constexpr (L > kNativeLanes) {
    union Halves {
      Vec<L> whole;
      Vec<L / 2> half[2];
    };
    const Halves x = {a}, y = {b};
    Halves u;
    u.half[0] = larger_of<L / 2>(x.half[0], y.half[0]);
    u.half[1] = larger_of<L / 2>(x.half[1], y.half[1]);
    return u.whole;
  } else {
    const Vec<L> most = a > b ? a : b;  // b where either is NaN
    return a == a ? most : a;
  }
}

/// T columns of a row of the convolution from `column` on, for two blocks of channels: rows[c * R + r] is the padded
/// row of the image that tap row r of channel c reads.
/// Not inlined, as GCC 12 then has registers for all sums.
template <int T, int Stride>
__attribute__((noinline)) void tile(const StemForward& p, const float* const* rows, int64_t column,
                                    const float* weights, const V (&bias)[2], float* out) {
  V sum[T][2];
  RESNET_UNROLL
  for (int i = 0; i < T; ++i) {
    sum[i][0] = bias[0];
    sum[i][1] = bias[1];
  }
  const int64_t count = p.C * p.R;
  for (int64_t row = 0; row < count; ++row) {
    const float* x = rows[row] + column * Stride;
    for (int64_t s = 0; s < p.S; ++s, ++x, weights += 2 * B) {
      const V w0 = load<B>(weights), w1 = load<B>(weights + B);
      RESNET_UNROLL
      for (int i = 0; i < T; ++i) {
        const V value = splat<B>(x[i * Stride]);
        sum[i][0] += value * w0;
        sum[i][1] += value * w1;
      }
    }
  }
  RESNET_UNROLL
  for (int i = 0; i < T; ++i) {
    RESNET_UNROLL
    for (int j = 0; j < 2; ++j) {
      store<B>(out + (j * p.Wo + column + i) * B, p.relu ? relu<B>(sum[i][j]) : sum[i][j]);
    }
  }
}

template <int T, int Stride>
void tail(int64_t columns, const StemForward& p, const float* const* rows, int64_t column, const float* weights,
          const V (&bias)[2], float* out) {
  if constexpr (T > 0) {
    if (columns == T) return tile<T, Stride>(p, rows, column, weights, bias, out);
    tail<T - 1, Stride>(columns, p, rows, column, weights, bias, out);
  }
}

/// out [2][Wo][B]
template <int Stride>
void convolve_row(const StemForward& p, const float* const* rows, const float* weights, const V (&bias)[2],
                  float* out) {
  int64_t column = 0;
  for (; column + kColumns <= p.Wo; column += kColumns) tile<kColumns, Stride>(p, rows, column, weights, bias, out);
  tail<kColumns - 1, Stride>(p.Wo - column, p, rows, column, weights, bias, out);
}

constexpr int64_t kMostRows = 64;  ///< C * R

/// What a thread works with.
struct Work {
  const StemForward& p;
  const Sizes z;
  float* image;  ///< [C][R][pitch], row h of the image in slot h % R
  float* zeros;
  float* map;  ///< [pool_kernel][2][Wo][B], row ho in slot ho % pool_kernel

  Work(const StemForward& p_, int thread) : p(p_), z(p_) {
    image = static_cast<float*>(p.scratch) + thread * z.all;
    zeros = image + z.image;
    map = zeros + z.zeros;
    for (int64_t i = 0; i < z.image + z.zeros; ++i) image[i] = 0;  // the padding stays so
  }

  float* map_row(int64_t ho) const { return map + ho % p.pool_kernel * 2 * p.Wo * B; }

  void copy_row(const float* x, int64_t h) const {
    const int64_t width = smaller(p.W, z.pitch - p.pad);
    for (int64_t c = 0; c < p.C; ++c) {
      const float* from = x + (c * p.H + h) * p.W;
      float* to = image + (c * p.R + h % p.R) * z.pitch + p.pad;
      for (int64_t w = 0; w < width; ++w) to[w] = from[w];
    }
  }

  /// One row of pooled windows of a block: the rows [first, last) of the convolution are in the ring.
  void pool_row(int64_t half, int64_t first, int64_t last, float* y) const {
    for (int64_t q = 0; q < p.Qo; ++q, y += B) {
      const int64_t from = larger(q * p.pool_stride - p.pool_pad, 0);
      const int64_t to = smaller(q * p.pool_stride - p.pool_pad + p.pool_kernel, p.Wo);
      V best = splat<B>(-__builtin_inff());
      for (int64_t ho = first; ho < last; ++ho) {
        const float* row = map_row(ho) + half * p.Wo * B;
        for (int64_t wo = from; wo < to; ++wo) best = larger_of<B>(best, load<B>(row + wo * B));
      }
      store<B>(y, best);
    }
  }

  /// Rows [begin, end) of the pooled map of two blocks of one image.
  void run(int64_t n, int64_t pair, int64_t begin, int64_t end) const {
    const int64_t blocks = ceil_div(p.K, B);
    const float* x = p.x + n * p.C * p.H * p.W;
    const float* weights = p.packed + pair * taps_of(p) * 2 * B;
    float padded[2 * B] = {};
    for (int64_t lane = 0; p.bias != nullptr && lane < smaller(2 * B, p.K - pair * 2 * B); ++lane) {
      padded[lane] = p.bias[pair * 2 * B + lane];
    }
    const V bias[2] = {load<B>(padded), load<B>(padded + B)};
    int64_t copied = 0, convolved = 0;  // rows below these are, or were, in their rings
    for (int64_t at = begin; at < end; ++at) {
      const int64_t first = larger(at * p.pool_stride - p.pool_pad, 0);
      const int64_t last = smaller(at * p.pool_stride - p.pool_pad + p.pool_kernel, p.Ho);
      for (int64_t ho = larger(first, convolved); ho < last; ++ho) {
        const int64_t top = ho * p.stride - p.pad, bottom = smaller(top + p.R, p.H);
        for (int64_t h = larger(larger(top, 0), copied); h < bottom; ++h) copy_row(x, h);
        copied = larger(copied, bottom);
        const float* rows[kMostRows];
        for (int64_t c = 0; c < p.C; ++c) {
          for (int64_t r = 0; r < p.R; ++r) {
            const int64_t h = top + r;
            rows[c * p.R + r] = h >= 0 && h < p.H ? image + (c * p.R + h % p.R) * z.pitch : zeros;
          }
        }
        if (p.stride == 1) {
          convolve_row<1>(p, rows, weights, bias, map_row(ho));
        } else {
          convolve_row<2>(p, rows, weights, bias, map_row(ho));
        }
      }
      convolved = larger(convolved, last);
      for (int64_t half = 0; half < smaller(2, blocks - pair * 2); ++half) {
        const int64_t block = pair * 2 + half;
        pool_row(half, first, last, p.y + (((n * blocks + block) * p.Po + at) * p.Qo) * B);
      }
    }
  }
};

void run(const StemForward& p) {
  const int64_t pairs = pairs_of(p);
  // Bands compute the rows between them twice: only as many as keep the threads busy.
  const int64_t bands = smaller(ceil_div(2 * p.threads, p.N * pairs), p.Po);
  const int64_t items = p.N * pairs * bands;
#pragma omp parallel num_threads(p.threads)
  {
    const Work work(p, omp_get_thread_num());
#pragma omp for schedule(static)
    for (int64_t item = 0; item < items; ++item) {
      const int64_t band = item % bands;
      work.run(item / bands / pairs, item / bands % pairs, p.Po * band / bands, p.Po * (band + 1) / bands);
    }
  }
}

}  // namespace

constinit const StemForwardKernels stem_forward = {B, packed_bytes, pack, scratch_bytes, run};

}  // namespace resnet::simd::RESNET_ISA
