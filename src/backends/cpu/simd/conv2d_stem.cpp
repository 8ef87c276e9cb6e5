#include "backends/cpu/simd/conv2d_stem.h"

#include "backends/cpu/simd/vec.h"

namespace resnet::simd::RESNET_ISA {

void stem_weight_grad(const StemWeightGrad& p);

namespace {

constexpr int B = kBlock;

struct Sizes {
  int64_t padded_h, padded_w, blocks, partial;  // partial: floats of one chunk's sum
};

Sizes sizes_of(const StemWeightGrad& p) {
  const int64_t blocks = (p.K + B - 1) / B;
  return {(p.Ho - 1) * p.stride + p.R, (p.Wo - 1) * p.stride + p.S, blocks, blocks * p.C * p.R * p.S * B};
}

/// One channel of one image with its padding, so that the inner loop needs no bounds.
void pad_plane(const StemWeightGrad& p, const Sizes& z, const float* plane, float* padded) {
  for (int64_t h = 0; h < z.padded_h; ++h) {
    const int64_t from = h - p.pad;
    for (int64_t w = 0; w < z.padded_w; ++w) {
      const int64_t at = w - p.pad;
      const bool inside = from >= 0 && from < p.H && at >= 0 && at < p.W;
      padded[h * z.padded_w + w] = inside ? plane[from * p.W + at] : 0.0f;
    }
  }
}

/// Adds the gradient of one row of taps, for KB blocks of output channels, to sum[KB][C*R*S][B]. The S x KB
/// accumulators stay in registers over the whole map.
template <int S, int KB>
void add_row(const StemWeightGrad& p, const Sizes& z, const float* padded, int64_t r, const float* dy, float* sum) {
  const int64_t area = p.Ho * p.Wo * B;
  const int64_t taps = p.C * p.R * p.S * B;
  Vec<B> acc[S][KB] = {};
  for (int64_t ho = 0; ho < p.Ho; ++ho) {
    const float* x = padded + (ho * p.stride + r) * z.padded_w;
    const float* d = dy + ho * p.Wo * B;
    for (int64_t wo = 0; wo < p.Wo; ++wo, x += p.stride, d += B) {
      Vec<B> g[KB];
      RESNET_UNROLL
      for (int k = 0; k < KB; ++k) g[k] = load<B>(d + k * area);
      RESNET_UNROLL
      for (int s = 0; s < S; ++s) {
        const Vec<B> value = splat<B>(x[s]);
        RESNET_UNROLL
        for (int k = 0; k < KB; ++k) acc[s][k] += value * g[k];
      }
    }
  }
  RESNET_UNROLL
  for (int s = 0; s < S; ++s) {
    RESNET_UNROLL
    for (int k = 0; k < KB; ++k) {
      float* to = sum + k * taps + s * B;
      store<B>(to, load<B>(to) + acc[s][k]);
    }
  }
}

template <int S>
void add_image(const StemWeightGrad& p, const Sizes& z, int64_t n, float* padded, float* sum) {
  const int64_t area = p.Ho * p.Wo * B;
  const int64_t taps = p.C * p.R * p.S * B;
  for (int64_t c = 0; c < p.C; ++c) {
    pad_plane(p, z, p.x + (n * p.C + c) * p.H * p.W, padded);
    int64_t kb = 0;
    // Two blocks share each broadcast: 2 x 7 accumulators and two gradients fill 16 registers.
    for (; kb + 2 <= z.blocks; kb += 2) {
      for (int64_t r = 0; r < p.R; ++r) {
        add_row<S, 2>(p, z, padded, r, p.dy + (n * z.blocks + kb) * area, sum + kb * taps + (c * p.R + r) * p.S * B);
      }
    }
    for (; kb < z.blocks; ++kb) {
      for (int64_t r = 0; r < p.R; ++r) {
        add_row<S, 1>(p, z, padded, r, p.dy + (n * z.blocks + kb) * area, sum + kb * taps + (c * p.R + r) * p.S * B);
      }
    }
  }
}

template <int S>
void run(const StemWeightGrad& p) {
  const Sizes z = sizes_of(p);
  const int64_t chunks = p.N < kStemChunks ? p.N : kStemChunks;
  const int64_t plane = (z.padded_h * z.padded_w + 15) / 16 * 16;
  float* partials = static_cast<float*>(p.scratch);
  float* planes = partials + chunks * z.partial;
#pragma omp parallel for num_threads(p.threads) schedule(static)
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    float* sum = partials + chunk * z.partial;
    for (int64_t i = 0; i < z.partial; ++i) sum[i] = 0;
    for (int64_t n = chunk * p.N / chunks; n < (chunk + 1) * p.N / chunks; ++n) {
      add_image<S>(p, z, n, planes + chunk * plane, sum);
    }
  }
  const int64_t taps = p.C * p.R * p.S;
  for (int64_t k = 0; k < p.K; ++k) {
    for (int64_t t = 0; t < taps; ++t) {
      double total = 0;
      for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        total += static_cast<double>(partials[chunk * z.partial + (k / B * taps + t) * B + k % B]);
      }
      p.dw[k * taps + t] = static_cast<float>(total);
    }
  }
}

}  // namespace

void stem_weight_grad(const StemWeightGrad& p) {
  switch (p.S) {
    case 1: return run<1>(p);
    case 2: return run<2>(p);
    case 3: return run<3>(p);
    case 4: return run<4>(p);
    case 5: return run<5>(p);
    case 6: return run<6>(p);
    case 7: return run<7>(p);
  }
}

}  // namespace resnet::simd::RESNET_ISA
