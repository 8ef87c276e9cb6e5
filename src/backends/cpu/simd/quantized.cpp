// Convolution of bytes as a matrix product: rows are output pixels, whose taps are gathered into a panel that stays in
// the second cache, columns are filters, packed in slivers as wide as two registers.

#include "backends/cpu/simd/quantized.h"

#include "backends/cpu/simd/quantized_winograd.h"

namespace resnet::simd::RESNET_ISA {
namespace {

// --- directly -------------------------------------------------------------------------------------------------------

template <class Kind>
struct Direct {
  typedef typename Kind::Pixel Pixel;
  typedef typename Kind::Weight Weight;

  const QuantizedConvSize& p;
  int64_t channels, filters, taps, groups, slivers, stride, rows, panel;

  explicit Direct(const QuantizedConvSize& size)
      : p(size),
        channels(size.C / size.groups),
        filters(size.K / size.groups),
        taps(size.R * size.S * channels),
        groups(ceil_div(taps, Kind::kGroup)),
        slivers(ceil_div(filters, kColumns)),
        stride(panel_stride<Kind>(groups * Kind::kGroup)),
        rows(size.N * size.Ho * size.Wo),
        panel(panel_rows(192 << 10, stride * static_cast<int64_t>(sizeof(Pixel)), 96, rows, size.threads)) {}

  int64_t sliver_elements() const { return groups * Kind::kGroup * kColumns; }
  size_t packed_bytes() const { return static_cast<size_t>(p.groups * slivers * sliver_elements()) * sizeof(Weight); }
  size_t panel_bytes() const { return static_cast<size_t>(round_up((panel + kRows) * stride, 64)) * sizeof(Pixel); }
  size_t scratch_bytes() const { return static_cast<size_t>(p.threads) * panel_bytes(); }

  /// Taps in the order in which a row is gathered: r, s, channel.
  void pack(const int8_t* w, Weight* packed) const {
#pragma omp parallel for schedule(static) num_threads(p.threads)
    for (int64_t i = 0; i < p.groups * slivers; ++i) {
      Weight* sliver = packed + i * sliver_elements();
      for (int64_t j = 0; j < sliver_elements(); ++j) sliver[j] = 0;
      const int64_t first = i % slivers * kColumns;
      for (int64_t column = 0; column < smaller(kColumns, filters - first); ++column) {
        const int8_t* from = w + (i / slivers * filters + first + column) * taps;
        for (int64_t rs = 0; rs < p.R * p.S; ++rs) {
          for (int64_t c = 0; c < channels; ++c) {
            const int64_t tap = rs * channels + c;
            sliver[(tap / Kind::kGroup * kColumns + column) * Kind::kGroup + tap % Kind::kGroup] =
                from[c * p.R * p.S + rs];
          }
        }
      }
    }
  }

  /// The taps of `count` output pixels from `first` on, for one group.
  void gather(const QuantizedConvArgs& args, int64_t first, int64_t count, int64_t group, Pixel* to) const {
    int64_t wo = first % p.Wo, ho = first / p.Wo % p.Ho, n = first / p.Wo / p.Ho;
    for (int64_t row = 0; row < count; ++row, to += stride) {
      gather(args, n, ho, wo, group, to);
      if (++wo < p.Wo) continue;
      wo = 0;
      if (++ho < p.Ho) continue;
      ho = 0;
      ++n;
    }
  }

  /// The taps of one output pixel.
  void gather(const QuantizedConvArgs& args, int64_t n, int64_t ho, int64_t wo, int64_t group, Pixel* to) const {
    const int64_t first = group * channels;
    const uint8_t* end = args.x + p.N * p.H * p.W * p.C;
    const bool runs = p.groups == 1 && p.dilation_w == 1;  // a row of taps lies in one piece
    const int64_t h0 = ho * p.stride_h - p.pad_h, w0 = wo * p.stride_w - p.pad_w;
    if (runs && h0 >= 0 && h0 + (p.R - 1) * p.dilation_h < p.H && w0 >= 0 && w0 + p.S <= p.W) {
      const uint8_t* from = args.x + ((n * p.H + h0) * p.W + w0) * p.C;
      for (int64_t r = 0; r < p.R; ++r, to += p.S * p.C, from += p.dilation_h * p.W * p.C)
        Kind::gather(to, from, p.S * p.C, end - from);
      for (int64_t i = taps; i < groups * Kind::kGroup; ++i) *to++ = 0;
      return;
    }
    for (int64_t r = 0; r < p.R; ++r) {
      const int64_t h = h0 + r * p.dilation_h, w = w0;
      const uint8_t* row = args.x + (n * p.H + h) * p.W * p.C + first;
      const bool in_rows = h >= 0 && h < p.H;
      if (runs && in_rows && w >= 0 && w + p.S <= p.W) {
        const uint8_t* from = row + w * p.C;
        Kind::gather(to, from, p.S * p.C, end - from);
        to += p.S * channels;
        continue;
      }
      for (int64_t s = 0; s < p.S; ++s, to += channels) {
        const int64_t column = w + s * p.dilation_w;
        const bool inside = in_rows && column >= 0 && column < p.W;
        const uint8_t* from = inside ? row + column * p.C : args.padding + first;
        Kind::gather(to, from, channels, inside ? end - from : channels);
      }
    }
    for (int64_t i = taps; i < groups * Kind::kGroup; ++i) *to++ = 0;
  }

  /// Whether the pixels of x, as they lie there, are the rows of a panel.
  bool in_place() const {
    return sizeof(Pixel) == 1 && p.R == 1 && p.S == 1 && p.stride_h == 1 && p.stride_w == 1 && p.pad_h == 0 &&
           p.pad_w == 0 && channels % Kind::kGroup == 0;
  }

  template <Residual kResidual>
  void run(const QuantizedConvArgs& args) const {
    const int64_t panels = ceil_div(rows, panel);
#pragma omp parallel num_threads(p.threads)
    {
      auto* gathered = reinterpret_cast<Pixel*>(static_cast<char*>(args.scratch) +
                                                static_cast<size_t>(omp_get_thread_num()) * panel_bytes());
      const Range mine = share(panels, omp_get_thread_num(), omp_get_num_threads());
      for (int64_t i = mine.first; i < mine.last; ++i) {
        const int64_t first = i * panel, count = smaller(panel, rows - first);
        for (int64_t group = 0; group < p.groups; ++group) {
          // A tile reads kRows rows, so the last one of x may have to be gathered all the same.
          const int64_t ready = in_place() ? count / kRows * kRows : 0;
          const auto* pixels = reinterpret_cast<const Pixel*>(args.x + first * p.C + group * channels);
          multiply<kResidual>(args, pixels, p.C, first, ready, group);
          gather(args, first + ready, count - ready, group, gathered);
          multiply<kResidual>(args, gathered, stride, first + ready, count - ready, group);
        }
      }
    }
  }

  /// `count` pixels from `first` on, whose rows lie at a, `distance` elements apart.
  template <Residual kResidual>
  void multiply(const QuantizedConvArgs& args, const Pixel* a, int64_t distance, int64_t first, int64_t count,
                int64_t group) const {
    if (count == 0) return;
    const auto* packed = static_cast<const Weight*>(args.packed);
    for (int64_t sliver = 0; sliver < slivers; ++sliver) {
      const int64_t k = sliver * kColumns;
      const Epilogue<kResidual> epilogue(args, p.K, group * filters + k, smaller(kColumns, filters - k));
      const Weight* b = packed + (group * slivers + sliver) * sliver_elements();
      for (int64_t row = 0; row < count; row += kRows) {
        alignas(64) uint32_t sums[kRows * kColumns];
        Kind::tile(a + row * distance, distance, b, groups, sums);
        epilogue.write_rows(sums, smaller(kRows, count - row), first + row);
      }
    }
  }
};

// --- the table ------------------------------------------------------------------------------------------------------

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
  if (algorithm == QuantizedAlgorithm::bytes) return f(Direct<Bytes>(p), static_cast<int8_t*>(nullptr));
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
      uint8_t plane[kChunk];
      for (int64_t c = 0; c < p.C; ++c) {
        const float* x = p.x + (n * p.C + c) * pixels + first;
        const float factor = p.factor[c], zero = p.zero[c];
        for (int64_t i = 0; i < last - first; ++i) plane[i] = quantized(x[i], factor, zero, p.least, p.largest);
        for (int64_t i = 0; i < last - first; ++i) out[(first + i) * p.C + c] = plane[i];
      }
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
