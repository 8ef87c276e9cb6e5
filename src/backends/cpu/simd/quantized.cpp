// Convolution of bytes as a matrix product: rows are output pixels, whose taps are gathered into a panel that stays in
// the second cache, columns are filters, packed in slivers as wide as two registers.

#include "backends/cpu/simd/quantized.h"

#include "backends/cpu/simd/quantized_tile.h"

namespace resnet::simd::RESNET_ISA {
namespace {

bool has_byte_products() {
#if defined(__AVX512BW__)
  return __builtin_cpu_supports("avx512vnni");
#else
  return false;
#endif
}

/// What is added to the sums: nothing, or a value of u8 or i8.
enum class Residual { none, u8, i8 };
Residual residual_of(const QuantizedConvArgs& p) {
  if (p.residual == nullptr) return Residual::none;
  return p.residual_signed ? Residual::i8 : Residual::u8;
}

/// The last steps of a sliver's filters.
template <Residual kResidual>
struct Epilogue {
  F32 multiplier[2], offset[2];  ///< padded to whole registers
  F32 least, largest, residual_multiplier;
  int64_t filters;  ///< of the sliver that exist
  int64_t from;     ///< the first
  int64_t pitch;    ///< from pixel to pixel
  const uint8_t* residual;
  uint8_t* y;

  Epilogue(const QuantizedConvArgs& p, int64_t K, int64_t first, int64_t count)
      : least(splat_f32(p.least)),
        largest(splat_f32(p.largest)),
        residual_multiplier(splat_f32(kResidual == Residual::none ? 0 : *p.residual_multiplier)),
        filters(count),
        from(first),
        pitch(K),
        residual(static_cast<const uint8_t*>(p.residual)),
        y(static_cast<uint8_t*>(p.y)) {
    float constants[2][kColumns] = {};
    for (int64_t k = 0; k < count; ++k) {
      constants[0][k] = p.multiplier[first + k];
      constants[1][k] = p.offset[first + k];
    }
    for (int half = 0; half < 2; ++half) {
      multiplier[half] = load_f32(constants[0] + half * kLanes);
      offset[half] = load_f32(constants[1] + half * kLanes);
    }
  }

  template <int kHalf>
  RESNET_INLINE I32 finish(I32 sum, const uint8_t* r) const {
    F32 v = __builtin_convertvector(sum, F32) * multiplier[kHalf];
    v = v + offset[kHalf];
    if constexpr (kResidual != Residual::none) {
      const F32 added = load_bytes(r + kHalf * kLanes, kResidual == Residual::i8) * residual_multiplier;
      v = v + added;
    }
    return rounded(clamped(v, least, largest));
  }

  /// The sums of one pixel, its number in y.
  RESNET_INLINE void write(I32 sum0, I32 sum1, int64_t pixel) const {
    const int64_t at = pixel * pitch + from;
    if (filters == kColumns) {
      return store_bytes(y + at, finish<0>(sum0, residual + at), finish<1>(sum1, residual + at));
    }
    uint8_t rest[kColumns] = {}, out[kColumns];
    if constexpr (kResidual != Residual::none) copy_bytes(rest, residual + at, filters);
    store_bytes(out, finish<0>(sum0, rest), finish<1>(sum1, rest));
    copy_bytes(y + at, out, filters);
  }

  /// The sums [count][kColumns] of pixels from `first` on.
  void write_rows(const uint32_t* sums, int64_t count, int64_t first) const {
    const Epilogue constants = *this;  // in registers: bytes of y might be anything's
    for (int64_t row = 0; row < count; ++row, sums += kColumns)
      constants.write((I32)load_u32(sums), (I32)load_u32(sums + kLanes), first + row);
  }
};

/// Elements between the rows of a panel: not a power of two, so that rows do not share the sets of the first cache.
template <class Kind>
int64_t panel_stride(int64_t taps) {
  const int64_t line = 64 / static_cast<int64_t>(sizeof(typename Kind::Pixel));
  return round_up(taps, line) + line;
}

/// Rows of a panel: as many as fit `panel_bytes`, a share of the second cache, in panels of one size that are a
/// multiple of the threads.
int64_t panel_rows(int64_t panel_bytes, int64_t row_bytes, int64_t most, int64_t rows, int threads) {
  const int64_t fit = larger(kRows, smaller(most, panel_bytes / row_bytes) / kRows * kRows);
  const int64_t panels = ceil_div(rows, fit * threads) * threads;
  return round_up(ceil_div(rows, panels), kRows);
}

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
    for (int64_t i = 0; i < p.groups * slivers * sliver_elements(); ++i) packed[i] = 0;
    for (int64_t k = 0; k < p.K; ++k) {
      const int64_t group = k / filters, column = k % filters;
      Weight* sliver = packed + (group * slivers + column / kColumns) * sliver_elements();
      for (int64_t c = 0; c < channels; ++c) {
        for (int64_t rs = 0; rs < p.R * p.S; ++rs) {
          const int64_t tap = rs * channels + c;
          sliver[(tap / Kind::kGroup * kColumns + column % kColumns) * Kind::kGroup + tap % Kind::kGroup] =
              w[(k * channels + c) * p.R * p.S + rs];
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
    for (int64_t r = 0; r < p.R; ++r) {
      const int64_t h = ho * p.stride_h - p.pad_h + r * p.dilation_h;
      const int64_t w = wo * p.stride_w - p.pad_w;
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

// --- Winograd's F(2x2, 3x3) -----------------------------------------------------------------------------------------

/// In whole numbers (Lavin and Gray 2015, arXiv:1509.09308, Sec. 4.1, with G doubled): tiles of 4x4 pixels are
/// transformed by B, filters by 2G, both fit 16 bits (4 * 255, 9 * 128); the inverse transform by A gives four times
/// the sums, exactly, as long as those fit 32 bits. On the way they may wrap.
struct Winograd {
  const QuantizedConvSize& p;
  int64_t pairs, slivers, tiles_h, tiles_w, tiles, stride, panel;

  static constexpr int64_t kMostChannels = 1 << 10;  // 4 * 255 * 128 * 9 * C < 2^31

  explicit Winograd(const QuantizedConvSize& size)
      : p(size),
        pairs(ceil_div(size.C, 2)),
        slivers(ceil_div(size.K, kColumns)),
        tiles_h(ceil_div(size.Ho, 2)),
        tiles_w(ceil_div(size.Wo, 2)),
        tiles(size.N * tiles_h * tiles_w),
        stride(panel_stride<Words>(pairs * 2)),
        panel(panel_rows(320 << 10, 16 * stride * 2, 64, tiles, size.threads)) {}

  static bool can(const QuantizedConvSize& p) {
    return p.R == 3 && p.S == 3 && p.stride_h == 1 && p.stride_w == 1 && p.dilation_h == 1 && p.dilation_w == 1 &&
           p.groups == 1 && p.C <= kMostChannels;
  }

  int64_t sliver_elements() const { return pairs * 2 * kColumns; }  // of one of the 16 products
  size_t packed_bytes() const { return static_cast<size_t>(slivers * 16 * sliver_elements()) * sizeof(int16_t); }
  int64_t position_stride() const { return (panel + kRows) * stride; }
  int64_t sums_stride() const { return (panel + kRows) * kColumns + 16; }
  size_t thread_bytes() const {
    return static_cast<size_t>(round_up(16 * (position_stride() * 2 + sums_stride() * 4), 64));
  }
  size_t scratch_bytes() const { return static_cast<size_t>(p.threads) * thread_bytes(); }

  void pack(const int8_t* w, int16_t* packed) const {
    for (int64_t i = 0; i < slivers * 16 * sliver_elements(); ++i) packed[i] = 0;
    for (int64_t k = 0; k < p.K; ++k) {
      for (int64_t c = 0; c < p.C; ++c) {
        const int8_t* g = w + (k * p.C + c) * 9;
        int rows[4][3];
        for (int j = 0; j < 3; ++j) {
          rows[0][j] = 2 * g[j];
          rows[1][j] = g[j] + g[3 + j] + g[6 + j];
          rows[2][j] = g[j] - g[3 + j] + g[6 + j];
          rows[3][j] = 2 * g[6 + j];
        }
        for (int i = 0; i < 4; ++i) {
          const int* t = rows[i];
          const int u[4] = {2 * t[0], t[0] + t[1] + t[2], t[0] - t[1] + t[2], 2 * t[2]};
          for (int j = 0; j < 4; ++j) {
            int16_t* sliver = packed + (k / kColumns * 16 + i * 4 + j) * sliver_elements();
            sliver[(c / 2 * kColumns + k % kColumns) * 2 + c % 2] = static_cast<int16_t>(u[j]);
          }
        }
      }
    }
  }

  struct Place {
    int64_t n, h, w;  ///< the tile's first output pixel
  };
  Place place(int64_t tile) const {
    return {tile / tiles_w / tiles_h, tile / tiles_w % tiles_h * 2, tile % tiles_w * 2};
  }

  template <class Number>
  static RESNET_INLINE void transform(const Number (&d)[4][4], Number (&v)[4][4]) {
    Number t[4][4];
    RESNET_UNROLL
    for (int j = 0; j < 4; ++j) {
      t[0][j] = d[0][j] - d[2][j];
      t[1][j] = d[1][j] + d[2][j];
      t[2][j] = d[2][j] - d[1][j];
      t[3][j] = d[1][j] - d[3][j];
    }
    RESNET_UNROLL
    for (int i = 0; i < 4; ++i) {
      v[i][0] = t[i][0] - t[i][2];
      v[i][1] = t[i][1] + t[i][2];
      v[i][2] = t[i][2] - t[i][1];
      v[i][3] = t[i][1] - t[i][3];
    }
  }

  /// One tile's pixels into the 16 panels, at `to` in the first.
  void transform_tile(const QuantizedConvArgs& args, int64_t tile, int16_t* to) const {
    const Place at = place(tile);
    const uint8_t* pixels[4][4];
    for (int64_t i = 0; i < 4; ++i) {
      for (int64_t j = 0; j < 4; ++j) {
        const int64_t h = at.h - p.pad_h + i, w = at.w - p.pad_w + j;
        const bool inside = h >= 0 && h < p.H && w >= 0 && w < p.W;
        pixels[i][j] = inside ? args.x + ((at.n * p.H + h) * p.W + w) * p.C : args.padding;
      }
    }
    int64_t c = 0;
#if defined(__AVX2__)
    typedef int16_t V16 __attribute__((vector_size(32)));
    for (; c + 16 <= p.C; c += 16) {
      V16 d[4][4], v[4][4];
      RESNET_UNROLL
      for (int i = 0; i < 4; ++i) {
        RESNET_UNROLL
        for (int j = 0; j < 4; ++j)
          d[i][j] = (V16)_mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(pixels[i][j] + c)));
      }
      transform(d, v);
      RESNET_UNROLL
      for (int i = 0; i < 16; ++i)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i * position_stride() + c), (__m256i)v[i / 4][i % 4]);
    }
#endif
    for (; c < p.C; ++c) {
      int d[4][4], v[4][4];
      for (int i = 0; i < 16; ++i) d[i / 4][i % 4] = pixels[i / 4][i % 4][c];
      transform(d, v);
      for (int i = 0; i < 16; ++i) to[i * position_stride() + c] = static_cast<int16_t>(v[i / 4][i % 4]);
    }
    if (p.C % 2 != 0) {
      for (int i = 0; i < 16; ++i) to[i * position_stride() + p.C] = 0;
    }
  }

  template <Residual kResidual>
  void run(const QuantizedConvArgs& args) const {
    const int64_t panels = ceil_div(tiles, panel);
#pragma omp parallel num_threads(p.threads)
    {
      char* mine = static_cast<char*>(args.scratch) + static_cast<size_t>(omp_get_thread_num()) * thread_bytes();
      auto* a = reinterpret_cast<int16_t*>(mine);
      auto* sums = reinterpret_cast<uint32_t*>(mine + 16 * position_stride() * 2);
      const Range part = share(panels, omp_get_thread_num(), omp_get_num_threads());
      for (int64_t i = part.first; i < part.last; ++i) {
        const int64_t first = i * panel, count = smaller(panel, tiles - first);
        for (int64_t tile = 0; tile < count; ++tile) transform_tile(args, first + tile, a + tile * stride);
        multiply<kResidual>(args, a, sums, first, count);
      }
    }
  }

  template <Residual kResidual>
  void multiply(const QuantizedConvArgs& args, const int16_t* a, uint32_t* sums, int64_t first, int64_t count) const {
    for (int64_t sliver = 0; sliver < slivers; ++sliver) {
      const auto* b = static_cast<const int16_t*>(args.packed) + sliver * 16 * sliver_elements();
      for (int64_t position = 0; position < 16; ++position, b += sliver_elements()) {
        for (int64_t row = 0; row < count; row += kRows) {
          Words::tile(a + position * position_stride() + row * stride, stride, b, pairs,
                      sums + position * sums_stride() + row * kColumns);
        }
      }
      const int64_t k = sliver * kColumns;
      const Epilogue<kResidual> epilogue(args, p.K, k, smaller(kColumns, p.K - k));
      for (int64_t tile = 0; tile < count; ++tile) write_tile(epilogue, sums + tile * kColumns, first + tile);
    }
  }

  template <Residual kResidual>
  void write_tile(const Epilogue<kResidual>& epilogue, const uint32_t* sums, int64_t tile) const {
    I32 out[2][2][2];  // row, column, half of the sliver
    RESNET_UNROLL
    for (int half = 0; half < 2; ++half) {
      U32 t[2][4];
      RESNET_UNROLL
      for (int j = 0; j < 4; ++j) {
        U32 m[4];
        RESNET_UNROLL
        for (int i = 0; i < 4; ++i) m[i] = load_u32(sums + (i * 4 + j) * sums_stride() + half * kLanes);
        t[0][j] = m[0] + m[1] + m[2];
        t[1][j] = m[1] - m[2] - m[3];
      }
      RESNET_UNROLL
      for (int i = 0; i < 2; ++i) {
        out[i][0][half] = (I32)(t[i][0] + t[i][1] + t[i][2]) >> 2;
        out[i][1][half] = (I32)(t[i][1] - t[i][2] - t[i][3]) >> 2;
      }
    }
    const Place at = place(tile);
    for (int64_t i = 0; i < smaller(2, p.Ho - at.h); ++i) {
      for (int64_t j = 0; j < smaller(2, p.Wo - at.w); ++j)
        epilogue.write(out[i][j][0], out[i][j][1], (at.n * p.Ho + at.h + i) * p.Wo + at.w + j);
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
    case QuantizedAlgorithm::bytes: return has_byte_products();
    case QuantizedAlgorithm::winograd: return Winograd::can(p);
  }
  return false;
}

/// Calls f with the algorithm's class for the problem.
template <class F>
RESNET_INLINE void with_algorithm(QuantizedAlgorithm algorithm, const QuantizedConvSize& p, const F& f) {
  if (algorithm == QuantizedAlgorithm::winograd) return f(Winograd(p), static_cast<int16_t*>(nullptr));
#ifdef RESNET_QUANTIZED_ASSEMBLY
  if (algorithm == QuantizedAlgorithm::pairs) return f(Direct<Pairs>(p), static_cast<int8_t*>(nullptr));
#endif
#if defined(__AVX512BW__)
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
constinit const QuantizedKernels quantized_kernels = {can,      pairs_fit, packed_bytes, pack_weights, scratch_bytes,
                                                      convolve, quantize,  dequantize,   max_pool,     global_avg_pool};

}  // namespace resnet::simd::RESNET_ISA
