#include "backends/cpu/simd/quantized.h"

#include "backends/cpu/simd/quantized_amx.h"
#include "backends/cpu/simd/quantized_vnni.h"
#include "backends/cpu/simd/quantized_winograd.h"

namespace resnet::simd::RESNET_ISA {
namespace {

/// Neighbouring taps in the order of a row, (0, 1), (2, 3), ...: 255 times the sum of those of one sign fits 16 bits.
bool pairs_fit(const QuantizedConvSize& p, const int8_t* w) {
  constexpr int kMost = 128;  // 255 * 128 < 2^15
  const int64_t channels = p.C / p.groups, area = p.R * p.S, taps = channels * area;
  for (int64_t k = 0; k < p.K; ++k, w += taps) {
    const auto tap = [&](int64_t i) { return i < taps ? int{w[i % channels * area + i / channels]} : 0; };
    for (int64_t i = 0; i < taps; i += 2) {
      const int first = tap(i), second = tap(i + 1);
      const int sum = (first > 0) == (second > 0) ? first + second : 0;
      if (sum > kMost || sum < -kMost) return false;
    }
  }
  return true;
}

bool can(QuantizedAlgorithm algorithm, const QuantizedConvSize& p) {
  switch (algorithm) {
    case QuantizedAlgorithm::pairs:
#ifdef RESNET_QUANTIZED_ASSEMBLY
      return true;
#else
      return false;
#endif
    case QuantizedAlgorithm::words: return true;
    case QuantizedAlgorithm::bytes: return has_vnni();
    case QuantizedAlgorithm::tiles:
#ifdef RESNET_AMX
      return has_amx_int8();
#else
      return false;
#endif
    case QuantizedAlgorithm::winograd2:
    case QuantizedAlgorithm::winograd4: return winograd_can(p);
  }
  return false;
}

bool exact(QuantizedAlgorithm algorithm, const QuantizedConvSize& p, const int8_t* w) {
  if (algorithm == QuantizedAlgorithm::pairs) return pairs_fit(p, w);
  if (algorithm == QuantizedAlgorithm::winograd4) return Winograd<4>::exact(p, w);
  return true;
}

/// Calls f with the algorithm's class for the problem.
template <class F>
RESNET_INLINE void with_algorithm(QuantizedAlgorithm algorithm, const QuantizedConvSize& p, const F& f) {
  if (algorithm == QuantizedAlgorithm::winograd2) return f(Winograd<2>(p), static_cast<int16_t*>(nullptr));
  if (algorithm == QuantizedAlgorithm::winograd4) return f(Winograd<4>(p), static_cast<int16_t*>(nullptr));
#ifdef RESNET_QUANTIZED_ASSEMBLY
  if (algorithm == QuantizedAlgorithm::pairs) return f(Direct<Pairs>(p), static_cast<int8_t*>(nullptr));
#endif
#if defined(RESNET_AVX512)
  if (algorithm == QuantizedAlgorithm::bytes) return f(Tiled<Vnni>(p), static_cast<int8_t*>(nullptr));
#endif
#ifdef RESNET_AMX
  if (algorithm == QuantizedAlgorithm::tiles) return f(Tiled<Amx>(p), static_cast<int8_t*>(nullptr));
#endif
  f(Direct<Words>(p), static_cast<int16_t*>(nullptr));
}

size_t packed_bytes(QuantizedAlgorithm algorithm, const QuantizedConvSize& p) {
  size_t bytes = 0;
  with_algorithm(algorithm, p, [&](const auto& convolution, auto*) { bytes = convolution.packed_bytes(); });
  return bytes;
}

void pack_weights(QuantizedAlgorithm algorithm, const QuantizedConvSize& p, const int8_t* w, void* packed) {
  with_algorithm(algorithm, p, [&](const auto& convolution, auto* weight) {
    convolution.pack(w, static_cast<decltype(weight)>(packed));
  });
}

size_t scratch_bytes(QuantizedAlgorithm algorithm, const QuantizedConvSize& p) {
  size_t bytes = 0;
  with_algorithm(algorithm, p, [&](const auto& convolution, auto*) { bytes = convolution.scratch_bytes(); });
  return bytes;
}

void convolve(QuantizedAlgorithm algorithm, const QuantizedConvSize& p, const QuantizedConvArgs& args) {
  with_algorithm(algorithm, p, [&](const auto& convolution, auto*) {
    switch (residual_of(args)) {
      case Residual::none: return convolution.template run<Residual::none>(args);
      case Residual::u8: return convolution.template run<Residual::u8>(args);
      case Residual::i8: return convolution.template run<Residual::i8>(args);
    }
  });
}

/// Whole numbers of a run of values that share a factor or have one each.
RESNET_INLINE uint8_t quantized(float x, float factor, float zero, float least, float largest) {
  const float scaled = x * factor;
  const float v = scaled + zero;
  const float above = v > least ? v : least;
  return static_cast<uint8_t>(static_cast<int>(__builtin_rintf(above < largest ? above : largest)));
}

/// The three planes of an image, pixel by pixel.
void interleave(const uint8_t* r, const uint8_t* g, const uint8_t* b, int64_t count, uint8_t* to) {
  typedef uint8_t V __attribute__((vector_size(16)));
  const auto load = [](const uint8_t* p) {
    V v;
    __builtin_memcpy(&v, p, 16);
    return v;
  };
  int64_t i = 0;
  for (; i + 16 <= count; i += 16, to += 48) {
    const V x = load(r + i), y = load(g + i), z = load(b + i);
    // Red and green where they belong, then blue between them.
    const V first = __builtin_shufflevector(x, y, 0, 16, 0, 1, 17, 0, 2, 18, 0, 3, 19, 0, 4, 20, 0, 5);
    const V second = __builtin_shufflevector(x, y, 21, 0, 6, 22, 0, 7, 23, 0, 8, 24, 0, 9, 25, 0, 10, 26);
    const V third = __builtin_shufflevector(x, y, 0, 11, 27, 0, 12, 28, 0, 13, 29, 0, 14, 30, 0, 15, 31, 0);
    const V out[3] = {__builtin_shufflevector(first, z, 0, 1, 16, 3, 4, 17, 6, 7, 18, 9, 10, 19, 12, 13, 20, 15),
                      __builtin_shufflevector(second, z, 0, 21, 2, 3, 22, 5, 6, 23, 8, 9, 24, 11, 12, 25, 14, 15),
                      __builtin_shufflevector(third, z, 26, 1, 2, 27, 4, 5, 28, 7, 8, 29, 10, 11, 30, 13, 14, 31)};
    __builtin_memcpy(to, out, sizeof out);
  }
  for (; i < count; ++i, to += 3) to[0] = r[i], to[1] = g[i], to[2] = b[i];
}

void quantize(const QuantizeArgs& p) {
  const int64_t pixels = p.H * p.W, blocks = ceil_div(p.C, p.block);
  constexpr int64_t kChunk = 1024;  // pixels: their bytes stay in the first cache
  const int64_t chunks = ceil_div(pixels, kChunk);
  auto* y = static_cast<uint8_t*>(p.y);
#pragma omp parallel for schedule(static) num_threads(useful_threads(p.threads, p.N* p.C* pixels * 4))
  for (int64_t item = 0; item < p.N * chunks; ++item) {
    const int64_t n = item / chunks, first = item % chunks * kChunk, last = smaller(pixels, first + kChunk);
    uint8_t* out = y + n * pixels * p.C;
    if (p.block == 1) {
      uint8_t planes[3][kChunk];
      for (int64_t c = 0; c < p.C; ++c) {
        const float* x = p.x + (n * p.C + c) * pixels + first;
        const float factor = p.factor[c], zero = p.zero[c];
        uint8_t* plane = planes[p.C == 3 ? c : 0];
        for (int64_t i = 0; i < last - first; ++i) plane[i] = quantized(x[i], factor, zero, p.least, p.largest);
        if (p.C == 3) continue;
        for (int64_t i = 0; i < last - first; ++i) out[(first + i) * p.C + c] = plane[i];
      }
      if (p.C == 3) interleave(planes[0], planes[1], planes[2], last - first, out + first * 3);
      continue;
    }
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t c = b * p.block, lanes = smaller(p.block, p.C - c);
      const float* x = p.x + (n * blocks + b) * pixels * p.block;
      float factor[16] = {}, zero[16] = {};
      for (int64_t i = 0; i < lanes; ++i) factor[i] = p.factor[c + i], zero[i] = p.zero[c + i];
      for (int64_t q = first; q < last; ++q) {
        for (int64_t i = 0; i < lanes; ++i)
          out[q * p.C + c + i] = quantized(x[q * p.block + i], factor[i], zero[i], p.least, p.largest);
      }
    }
  }
}

void dequantize(const DequantizeArgs& p) {
  const int64_t pixels = p.H * p.W, blocks = ceil_div(p.C, p.block);
  const auto* x = static_cast<const uint8_t*>(p.x);
#pragma omp parallel for schedule(static) num_threads(useful_threads(p.threads, p.N* p.C* pixels * 4))
  for (int64_t item = 0; item < p.N * blocks; ++item) {
    const int64_t n = item / blocks, c = item % blocks * p.block, lanes = smaller(p.block, p.C - c);
    float* y = p.y + item * pixels * p.block;
    for (int64_t q = 0; q < pixels; ++q) {
      const uint8_t* from = x + (n * pixels + q) * p.C + c;
      for (int64_t i = 0; i < lanes; ++i) {
        const float value =
            p.is_signed ? static_cast<float>(static_cast<int8_t>(from[i])) : static_cast<float>(from[i]);
        y[q * p.block + i] = (value - p.zero) * p.scale;
      }
      for (int64_t i = lanes; i < p.block; ++i) y[q * p.block + i] = 0;
    }
  }
}

/// Whether the larger of two bytes is that of u8 or of i8.
struct Unsigned {
  typedef uint8_t Byte;
#if defined(__AVX2__)
  static RESNET_INLINE __m256i larger_of(__m256i a, __m256i b) { return _mm256_max_epu8(a, b); }
#endif
};
struct Signed {
  typedef int8_t Byte;
#if defined(__AVX2__)
  static RESNET_INLINE __m256i larger_of(__m256i a, __m256i b) { return _mm256_max_epi8(a, b); }
#endif
};

template <class Sign>
void max_pool_as(const QuantizedPoolArgs& p) {
  typedef typename Sign::Byte Byte;
  const auto* x = static_cast<const Byte*>(p.x);
  auto* y = static_cast<Byte*>(p.y);
#pragma omp parallel for schedule(static) num_threads(useful_threads(p.threads, p.N* p.C* p.H* p.W))
  for (int64_t row = 0; row < p.N * p.Ho; ++row) {
    const int64_t n = row / p.Ho, h0 = row % p.Ho * p.stride_h - p.pad_h;
    const int64_t h_first = larger(0, h0), h_last = smaller(p.H, h0 + p.kernel_h);
    for (int64_t wo = 0; wo < p.Wo; ++wo) {
      const int64_t w0 = wo * p.stride_w - p.pad_w;
      const int64_t w_first = larger(0, w0), w_last = smaller(p.W, w0 + p.kernel_w);
      Byte* out = y + (row * p.Wo + wo) * p.C;
      const auto pixel = [&](int64_t h, int64_t w) { return x + ((n * p.H + h) * p.W + w) * p.C; };
      int64_t c = 0;
#if defined(__AVX2__)
      for (; c + 32 <= p.C; c += 32) {
        const auto bytes = [&](int64_t h, int64_t w) {
          return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(pixel(h, w) + c));
        };
        __m256i best = bytes(h_first, w_first);
        for (int64_t h = h_first; h < h_last; ++h)
          for (int64_t w = w_first; w < w_last; ++w) best = Sign::larger_of(best, bytes(h, w));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + c), best);
      }
#endif
      for (; c < p.C; ++c) {
        Byte best = pixel(h_first, w_first)[c];
        for (int64_t h = h_first; h < h_last; ++h) {
          for (int64_t w = w_first; w < w_last; ++w) {
            const Byte value = pixel(h, w)[c];
            best = value > best ? value : best;
          }
        }
        out[c] = best;
      }
    }
  }
}

void max_pool(const QuantizedPoolArgs& p) { p.is_signed ? max_pool_as<Signed>(p) : max_pool_as<Unsigned>(p); }

void global_avg_pool(const QuantizedPoolArgs& p) {
  const int64_t pixels = p.H * p.W, blocks = ceil_div(p.C, p.block);
  const auto* x = static_cast<const uint8_t*>(p.x);
  const float share = p.scale / static_cast<float>(pixels);
  constexpr int64_t kChunk = 128;  // channels, whole blocks
#pragma omp parallel for schedule(static) num_threads(useful_threads(p.threads, p.N* p.C* pixels))
  for (int64_t n = 0; n < p.N; ++n) {
    for (int64_t c = 0; c < blocks * p.block; c += kChunk) {
      int64_t sum[kChunk] = {};
      const int64_t lanes = smaller(kChunk, p.C - c);
      // Runs whose sums fit 32 bits.
      for (int64_t first = 0; first < pixels; first += int64_t{1} << 20) {
        int32_t run[kChunk] = {};
        for (int64_t q = first; q < smaller(pixels, first + (int64_t{1} << 20)); ++q) {
          const uint8_t* from = x + (n * pixels + q) * p.C + c;
          if (p.is_signed) {
            for (int64_t i = 0; i < lanes; ++i) run[i] += static_cast<int8_t>(from[i]);
          } else {
            for (int64_t i = 0; i < lanes; ++i) run[i] += from[i];
          }
        }
        for (int64_t i = 0; i < lanes; ++i) sum[i] += run[i];
      }
      for (int64_t i = 0; i < smaller(kChunk, blocks * p.block - c); ++i)
        p.mean[n * blocks * p.block + c + i] = static_cast<float>(sum[i]) * share;
    }
  }
}

}  // namespace

extern const QuantizedKernels quantized_kernels;
constinit const QuantizedKernels quantized_kernels = {can,      exact,    packed_bytes, pack_weights, scratch_bytes,
                                                      convolve, quantize, dequantize,   max_pool,     global_avg_pool};

}  // namespace resnet::simd::RESNET_ISA
