// Convolution of bytes as a matrix product: rows are output pixels, whose taps are gathered into a panel that stays in
// the second cache, columns are filters, packed in slivers as wide as two registers.

#include "backends/cpu/simd/quantized.h"

#include "backends/cpu/simd/kernels.h"

namespace resnet::simd::RESNET_ISA {
namespace {

#if defined(RESNET_AVX512)
constexpr int kLanes = 16;  // of 32 bits
constexpr int kRows = 12;   // of one register tile: 12 x 2 sums, two columns and a pixel fill 27 of 32 registers
#elif defined(__AVX2__)
constexpr int kLanes = 8;
constexpr int kRows = 6;  // 15 of 16
#else
constexpr int kLanes = 4;
constexpr int kRows = 6;
#endif
constexpr int kColumns = 2 * kLanes;  // filters of a sliver

// Unsigned, as sums may wrap on their way: Winograd's fit 32 bits only at the end.
typedef uint32_t U32 __attribute__((vector_size(kLanes * 4)));
typedef int32_t I32 __attribute__((vector_size(kLanes * 4)));
typedef float F32 __attribute__((vector_size(kLanes * 4)));
typedef int16_t I16 __attribute__((vector_size(kLanes * 4)));
typedef U32 U32Unaligned __attribute__((aligned(4), may_alias));
typedef F32 F32Unaligned __attribute__((aligned(4), may_alias));
typedef I16 I16Unaligned __attribute__((aligned(2), may_alias));
typedef uint32_t Word32 __attribute__((aligned(1), may_alias));

RESNET_INLINE U32 load_u32(const void* p) { return *static_cast<const U32Unaligned*>(p); }
RESNET_INLINE void store_u32(void* p, U32 v) { *static_cast<U32Unaligned*>(p) = v; }
RESNET_INLINE F32 load_f32(const float* p) { return *reinterpret_cast<const F32Unaligned*>(p); }
RESNET_INLINE U32 splat_u32(const void* p) { return *static_cast<const Word32*>(p) - U32{}; }
RESNET_INLINE F32 splat_f32(float v) { return v - F32{}; }

/// sum + a[2i] * b[2i] + a[2i+1] * b[2i+1], 16-bit a and b.
RESNET_INLINE U32 add_pairs(U32 sum, U32 a, U32 b) {
#if defined(RESNET_AVX512)
  return sum + (U32)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return sum + (U32)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
  return sum + (U32)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
  const I16 x = (I16)a, y = (I16)b;
  for (int i = 0; i < kLanes; ++i) sum[i] += static_cast<uint32_t>(x[2 * i] * y[2 * i] + x[2 * i + 1] * y[2 * i + 1]);
  return sum;
#endif
}

/// Nearest, halves to even.
RESNET_INLINE I32 rounded(F32 v) {
#if defined(RESNET_AVX512)
  return (I32)_mm512_cvtps_epi32((__m512)v);
#elif defined(__AVX2__)
  return (I32)_mm256_cvtps_epi32((__m256)v);
#elif defined(__SSE2__)
  return (I32)_mm_cvtps_epi32((__m128)v);
#else
  I32 r = {};
  for (int i = 0; i < kLanes; ++i) r[i] = static_cast<int32_t>(__builtin_nearbyintf(v[i]));
  return r;
#endif
}

/// `v` in [least, largest]; a NaN becomes least.
RESNET_INLINE F32 clamped(F32 v, F32 least, F32 largest) {
  const F32 above = v > least ? v : least;
  return above < largest ? above : largest;
}

RESNET_INLINE void store_bytes(uint8_t* p, I32 v) {
#if defined(RESNET_AVX512)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8((__m512i)v));
#elif defined(__AVX2__)
  const __m256i low =
      _mm256_shuffle_epi8((__m256i)v, _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0,
                                                       4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p),
                   _mm_unpacklo_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1)));
#else
  for (int i = 0; i < kLanes; ++i) p[i] = static_cast<uint8_t>(v[i]);
#endif
}

RESNET_INLINE F32 load_bytes(const uint8_t* p, bool is_signed) {
#if defined(RESNET_AVX512)
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return (F32)_mm512_cvtepi32_ps(is_signed ? _mm512_cvtepi8_epi32(bytes) : _mm512_cvtepu8_epi32(bytes));
#elif defined(__AVX2__)
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return (F32)_mm256_cvtepi32_ps(is_signed ? _mm256_cvtepi8_epi32(bytes) : _mm256_cvtepu8_epi32(bytes));
#else
  F32 r = {};
  for (int i = 0; i < kLanes; ++i) r[i] = is_signed ? static_cast<int8_t>(p[i]) : p[i];
  return r;
#endif
}

/// Bytes as 16-bit words.
RESNET_INLINE void widen(int16_t* to, const uint8_t* from, int64_t n) {
#if defined(__AVX2__)
  auto sixteen = [&](int64_t i) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i),
                        _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
  };
  if (n >= 16) {
    for (int64_t i = 0; i + 16 <= n; i += 16) sixteen(i);
    if (n % 16 != 0) sixteen(n - 16);
    return;
  }
#endif
  for (int64_t i = 0; i < n; ++i) to[i] = from[i];
}

RESNET_INLINE void copy_bytes(uint8_t* to, const uint8_t* from, int64_t n) {
  __builtin_memcpy(to, from, static_cast<size_t>(n));
}

// Both kinds of product. A panel's row and a sliver's column hold groups of taps that one instruction multiplies.

/// 16-bit pairs.
struct Words {
  typedef int16_t Pixel;
  typedef int16_t Weight;
  static constexpr int kGroup = 2;
  static RESNET_INLINE void gather(Pixel* to, const uint8_t* from, int64_t n) { widen(to, from, n); }

  /// c[kRows][kColumns] = a (rows `stride` elements apart) times the sliver b over `groups` groups of taps.
  static void tile(const Pixel* a, int64_t stride, const Weight* b, int64_t groups, uint32_t* c) {
    U32 sum[kRows][2] = {};
    for (int64_t g = 0; g < groups; ++g, a += kGroup, b += kGroup * kColumns) {
      const U32 b0 = load_u32(b), b1 = load_u32(b + kGroup * kLanes);
      RESNET_UNROLL
      for (int i = 0; i < kRows; ++i) {
        const U32 pixel = splat_u32(a + i * stride);
        sum[i][0] = add_pairs(sum[i][0], pixel, b0);
        sum[i][1] = add_pairs(sum[i][1], pixel, b1);
      }
    }
    RESNET_UNROLL
    for (int i = 0; i < kRows; ++i) {
      store_u32(c + i * kColumns, sum[i][0]);
      store_u32(c + i * kColumns + kLanes, sum[i][1]);
    }
  }
};

#if defined(__AVX2__) && !defined(RESNET_AVX512)
/// Bytes, added in pairs at 16 bits and then at 32: a third fewer instructions than words, half the memory.
struct Pairs {
  typedef uint8_t Pixel;
  typedef int8_t Weight;
  static constexpr int kGroup = 4;
  static RESNET_INLINE void gather(Pixel* to, const uint8_t* from, int64_t n) { copy_bytes(to, from, n); }

  static void tile(const Pixel* a, int64_t stride, const Weight* b, int64_t groups, uint32_t* c) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sum[kRows][2];
    RESNET_UNROLL
    for (int i = 0; i < kRows; ++i) sum[i][0] = sum[i][1] = _mm256_setzero_si256();
    for (int64_t g = 0; g < groups; ++g, a += kGroup, b += kGroup * kColumns) {
      const __m256i b0 = (__m256i)load_u32(b), b1 = (__m256i)load_u32(b + kGroup * kLanes);
      RESNET_UNROLL
      for (int i = 0; i < kRows; ++i) {
        const __m256i pixel = (__m256i)splat_u32(a + i * stride);
        sum[i][0] = _mm256_add_epi32(sum[i][0], _mm256_madd_epi16(_mm256_maddubs_epi16(pixel, b0), ones));
        sum[i][1] = _mm256_add_epi32(sum[i][1], _mm256_madd_epi16(_mm256_maddubs_epi16(pixel, b1), ones));
      }
    }
    RESNET_UNROLL
    for (int i = 0; i < kRows; ++i) {
      store_u32(c + i * kColumns, (U32)sum[i][0]);
      store_u32(c + i * kColumns + kLanes, (U32)sum[i][1]);
    }
  }
};
#endif

#if defined(RESNET_AVX512)
/// Four bytes at once.
struct Bytes {
  typedef uint8_t Pixel;
  typedef int8_t Weight;
  static constexpr int kGroup = 4;
  static RESNET_INLINE void gather(Pixel* to, const uint8_t* from, int64_t n) { copy_bytes(to, from, n); }

  RESNET_TARGET_VNNI static void tile(const Pixel* a, int64_t stride, const Weight* b, int64_t groups, uint32_t* c) {
    __m512i sum[kRows][2];
    for (int i = 0; i < kRows; ++i) sum[i][0] = sum[i][1] = _mm512_setzero_si512();
    for (int64_t g = 0; g < groups; ++g, a += kGroup, b += kGroup * kColumns) {
      const __m512i b0 = _mm512_loadu_si512(b), b1 = _mm512_loadu_si512(b + kGroup * kLanes);
      RESNET_UNROLL
      for (int i = 0; i < kRows; ++i) {
        const __m512i pixel = _mm512_set1_epi32(static_cast<int>(*reinterpret_cast<const Word32*>(a + i * stride)));
        sum[i][0] = _mm512_dpbusd_epi32(sum[i][0], pixel, b0);
        sum[i][1] = _mm512_dpbusd_epi32(sum[i][1], pixel, b1);
      }
    }
    RESNET_UNROLL
    for (int i = 0; i < kRows; ++i) {
      _mm512_storeu_si512(c + i * kColumns, sum[i][0]);
      _mm512_storeu_si512(c + i * kColumns + kLanes, sum[i][1]);
    }
  }
};
#endif

bool has_byte_products() {
#if defined(RESNET_AVX512) && defined(RESNET_EMULATE_AVX512)
  return true;
#elif defined(RESNET_AVX512)
  return __builtin_cpu_supports("avx512vnni");
#else
  return false;
#endif
}

/// The last steps of a sliver's filters, whose constants are padded to whole registers.
struct Epilogue {
  float multiplier[kColumns], offset[kColumns];
  F32 least, largest, residual_multiplier;
  bool residual, residual_signed;
  int64_t filters;  ///< of the sliver that exist

  Epilogue(const QuantizedConvArgs& p, int64_t first, int64_t count)
      : least(splat_f32(p.least)),
        largest(splat_f32(p.largest)),
        residual_multiplier(splat_f32(p.residual ? *p.residual_multiplier : 0)),
        residual(p.residual != nullptr),
        residual_signed(p.residual_signed),
        filters(count) {
    for (int64_t k = 0; k < kColumns; ++k) {
      multiplier[k] = k < count ? p.multiplier[first + k] : 0;
      offset[k] = k < count ? p.offset[first + k] : 0;
    }
  }

  RESNET_INLINE I32 finish(I32 sum, int column, const uint8_t* r) const {
    F32 v = __builtin_convertvector(sum, F32) * load_f32(multiplier + column);
    v = v + load_f32(offset + column);
    if (residual) {
      const F32 added = load_bytes(r, residual_signed) * residual_multiplier;
      v = v + added;
    }
    return rounded(clamped(v, least, largest));
  }

  /// Sums [kColumns] of one pixel to y, with the residual r (at the same place).
  RESNET_INLINE void write(const I32 (&sum)[2], const uint8_t* r, uint8_t* y) const {
    if (filters == kColumns) {
      store_bytes(y, finish(sum[0], 0, r));
      store_bytes(y + kLanes, finish(sum[1], kLanes, r + kLanes));
      return;
    }
    uint8_t rest[kColumns] = {}, out[kColumns];
    if (residual) copy_bytes(rest, r, filters);
    store_bytes(out, finish(sum[0], 0, rest));
    store_bytes(out + kLanes, finish(sum[1], kLanes, rest + kLanes));
    copy_bytes(y, out, filters);
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
    const bool runs = p.groups == 1 && p.dilation_w == 1;  // a row of taps lies in one piece
    for (int64_t r = 0; r < p.R; ++r) {
      const int64_t h = ho * p.stride_h - p.pad_h + r * p.dilation_h;
      const int64_t w = wo * p.stride_w - p.pad_w;
      const uint8_t* row = args.x + (n * p.H + h) * p.W * p.C + first;
      const bool in_rows = h >= 0 && h < p.H;
      if (runs && in_rows && w >= 0 && w + p.S <= p.W) {
        Kind::gather(to, row + w * p.C, p.S * p.C);
        to += p.S * channels;
        continue;
      }
      for (int64_t s = 0; s < p.S; ++s, to += channels) {
        const int64_t column = w + s * p.dilation_w;
        const bool inside = in_rows && column >= 0 && column < p.W;
        Kind::gather(to, inside ? row + column * p.C : args.padding + first, channels);
      }
    }
    for (int64_t i = taps; i < groups * Kind::kGroup; ++i) *to++ = 0;
  }

  void run(const QuantizedConvArgs& args) const {
    const int64_t panels = ceil_div(rows, panel);
#pragma omp parallel num_threads(p.threads)
    {
      auto* a = reinterpret_cast<Pixel*>(static_cast<char*>(args.scratch) +
                                         static_cast<size_t>(omp_get_thread_num()) * panel_bytes());
      const Range mine = share(panels, omp_get_thread_num(), omp_get_num_threads());
      for (int64_t i = mine.first; i < mine.last; ++i) {
        const int64_t first = i * panel, count = smaller(panel, rows - first);
        for (int64_t group = 0; group < p.groups; ++group) {
          gather(args, first, count, group, a);
          multiply(args, a, first, count, group);
        }
      }
    }
  }

  void multiply(const QuantizedConvArgs& args, const Pixel* a, int64_t first, int64_t count, int64_t group) const {
    const auto* packed = static_cast<const Weight*>(args.packed);
    for (int64_t sliver = 0; sliver < slivers; ++sliver) {
      const int64_t k = group * filters + sliver * kColumns;
      const Epilogue epilogue(args, k, smaller(kColumns, filters - sliver * kColumns));
      const Weight* b = packed + (group * slivers + sliver) * sliver_elements();
      for (int64_t row = 0; row < count; row += kRows) {
        alignas(64) uint32_t sums[kRows * kColumns];
        Kind::tile(a + row * stride, stride, b, groups, sums);
        for (int64_t j = 0; j < smaller(kRows, count - row); ++j) {
          const int64_t at = (first + row + j) * p.K + k;
          const I32 sum[2] = {(I32)load_u32(sums + j * kColumns), (I32)load_u32(sums + j * kColumns + kLanes)};
          const auto* residual = static_cast<const uint8_t*>(args.residual);
          epilogue.write(sum, residual ? residual + at : nullptr, static_cast<uint8_t*>(args.y) + at);
        }
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
        multiply(args, a, sums, first, count);
      }
    }
  }

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
      const Epilogue epilogue(args, k, smaller(kColumns, p.K - k));
      for (int64_t tile = 0; tile < count; ++tile) write_tile(args, epilogue, sums + tile * kColumns, first + tile, k);
    }
  }

  void write_tile(const QuantizedConvArgs& args, const Epilogue& epilogue, const uint32_t* sums, int64_t tile,
                  int64_t k) const {
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
    const auto* residual = static_cast<const uint8_t*>(args.residual);
    for (int64_t i = 0; i < smaller(2, p.Ho - at.h); ++i) {
      for (int64_t j = 0; j < smaller(2, p.Wo - at.w); ++j) {
        const int64_t y = ((at.n * p.Ho + at.h + i) * p.Wo + at.w + j) * p.K + k;
        epilogue.write(out[i][j], residual ? residual + y : nullptr, static_cast<uint8_t*>(args.y) + y);
      }
    }
  }
};

// --- the table
// --------------------------------------------------------------------------------------------------------

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
#if defined(__AVX2__) && !defined(RESNET_AVX512)
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
#if defined(__AVX2__) && !defined(RESNET_AVX512)
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
  with_algorithm(algorithm, p, [&](const auto& convolution, auto*) { convolution.run(args); });
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
