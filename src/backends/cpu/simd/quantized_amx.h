#pragma once
// Convolution of bytes by AMX, whose registers are two-dimensional: one instruction multiplies 64 taps of 16 pixels by
// those of 16 filters. It does eight times VNNI's products, so that what surrounds them takes most of the time: the
// sums of one tile are rounded while the next ones are made, and stored as whole registers of bytes.

#include "backends/cpu/simd/isa_macros.h"

#ifdef RESNET_AMX

#include "backends/cpu/simd/quantized_direct.h"

namespace resnet::simd::RESNET_ISA {
namespace {

constexpr int64_t kAmxRows = 32, kAmxStep = 64;
static_assert(kColumns == 32);

#ifdef RESNET_EMULATE_AVX512
thread_local int32_t amx_sums[kAmxRows][kColumns];

struct AmxInUse {
  AmxInUse() {}
  ~AmxInUse() {}
};

void amx_begin() {
  for (auto& row : amx_sums)
    for (int32_t& sum : row) sum = 0;
}
template <bool kStreamed>
void amx_step(const uint8_t* a, int64_t stride, const int8_t* b) {
  for (int64_t row = 0; row < kAmxRows; ++row) {
    for (int64_t tap = 0; tap < kAmxStep; ++tap) {
      const int8_t* weights = b + tap / 4 * 4 * kColumns + tap % 4;
      for (int64_t k = 0; k < kColumns; ++k) amx_sums[row][k] += a[row * stride + tap] * weights[4 * k];
    }
  }
}
void amx_end(uint32_t* c) { __builtin_memcpy(c, amx_sums, sizeof amx_sums); }
#else
// In assembly, as GCC 12's intrinsics do not tell the compiler which memory they read and write.

/// While it lives its thread may use the tile registers.
struct AmxInUse {
  /// Palette 1: eight registers of 16 rows of 64 bytes.
  struct alignas(64) Configuration {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  };
  static_assert(sizeof(Configuration) == 64);

  AmxInUse() {
    static constexpr Configuration kConfiguration;
    asm volatile("ldtilecfg %0" : : "m"(kConfiguration));
  }
  ~AmxInUse() { asm volatile("tilerelease"); }
  AmxInUse(const AmxInUse&) = delete;
  AmxInUse& operator=(const AmxInUse&) = delete;
};

/// Two by two registers of sums: kAmxRows rows by kColumns columns. Nothing else uses these registers in between.
RESNET_INLINE void amx_begin() { asm volatile("tilezero %tmm0\n\ttilezero %tmm1\n\ttilezero %tmm2\n\ttilezero %tmm3"); }
/// Adds the products of kAmxStep taps: of rows `stride` bytes apart with the next part of a sliver, which with
/// `kStreamed` does not take the first cache from the rows.
template <bool kStreamed>
RESNET_INLINE void amx_step(const uint8_t* a, int64_t stride, const int8_t* b) {
#define RESNET_AMX_STEP(LOAD_B)                                                                                      \
  asm volatile(                                                                                                      \
      LOAD_B                                                                                                         \
      " (%[b],%[row]), %%tmm6\n\t"                                                                                   \
      "tileloadd (%[a],%[stride]), %%tmm4\n\t"                                                                       \
      "tdpbusd %%tmm6, %%tmm4, %%tmm0\n\t" LOAD_B                                                                    \
      " 64(%[b],%[row]), %%tmm7\n\t"                                                                                 \
      "tdpbusd %%tmm7, %%tmm4, %%tmm1\n\t"                                                                           \
      "tileloadd (%[lower],%[stride]), %%tmm5\n\t"                                                                   \
      "tdpbusd %%tmm6, %%tmm5, %%tmm2\n\t"                                                                           \
      "tdpbusd %%tmm7, %%tmm5, %%tmm3"                                                                               \
      :                                                                                                              \
      : [a] "r"(a), [lower] "r"(a + 16 * stride), [b] "r"(b), [stride] "r"(stride), [row] "r"(int64_t{4 * kColumns}) \
      : "memory")
  if constexpr (kStreamed) {
    RESNET_AMX_STEP("tileloaddt1");
  } else {
    RESNET_AMX_STEP("tileloadd");
  }
#undef RESNET_AMX_STEP
}
RESNET_INLINE void amx_end(uint32_t* c) {
  asm volatile(
      "tilestored %%tmm0, (%[c],%[row])\n\t"
      "tilestored %%tmm1, 64(%[c],%[row])\n\t"
      "tilestored %%tmm2, (%[below],%[row])\n\t"
      "tilestored %%tmm3, 64(%[below],%[row])"
      :
      : [c] "r"(c), [below] "r"(c + 16 * kColumns), [row] "r"(int64_t{4 * kColumns})
      : "memory");
}

#endif

/// Where the taps of kAmxRows neighbouring rows lie, row by row `stride` bytes apart: `pieces` pieces of `steps` times
/// kAmxStep taps, `gap` bytes from the end of one to the next.
struct AmxTaps {
  int64_t stride, steps, pieces, gap;
  bool streamed;  ///< whether the weights are more than the first cache holds beside them
};

/// What Direct wants to know.
struct AmxBytes {
  typedef uint8_t Pixel;
  typedef int8_t Weight;
  static constexpr int kGroup = 4, kStep = kAmxStep;
  static RESNET_INLINE void gather(Pixel* to, const uint8_t* from, int64_t n, int64_t room) {
    if (n % 64 != 0) return copy_bytes(to, from, n, room);
    for (int64_t i = 0; i < n; i += 64) store_u32(to + i, load_u32(from + i));
  }
};

/// The sums of a tile, and whose they are.
struct AmxSums {
  struct Run {
    int64_t row, rows, pixel;  ///< rows of the tile, and the pixel of y that the first of them is
  };
  alignas(64) uint32_t sums[kAmxRows * kColumns];
  int64_t filter = 0, filters = 0;  ///< of y
  int64_t runs = 0;
  Run run[kAmxRows];
};

/// Which values y may take.
enum class AmxRange { u8, i8, other };

/// Epilogue of whole slivers whose results take all of u8, or of i8: instructions that saturate cut them off. Two rows
/// at once fill a register with bytes.
template <Residual kResidual, AmxRange kRange>
class AmxWriter {
 public:
  AmxWriter(const QuantizedConvArgs& args, int64_t K, const AmxSums& sums)
      : tile_(sums),
        pitch_(K),
        residual_(static_cast<const uint8_t*>(args.residual)),
        y_(static_cast<uint8_t*>(args.y)),
        residual_multiplier_(splat_f32(kResidual == Residual::none ? 0 : *args.residual_multiplier)),
        largest_(splat_f32(kRange == AmxRange::i8 ? 127 : 255)) {
    for (int half = 0; half < 2; ++half) {
      multiplier_[half] = load_f32(args.multiplier + sums.filter + half * kLanes);
      offset_[half] = load_f32(args.offset + sums.filter + half * kLanes);
    }
    start_run();
  }

  /// The next `count` pairs of rows, as far as there are any.
  RESNET_INLINE void pairs(int64_t count) {
    const AmxWriter self = *this;  // in registers: bytes of y might be anything's
    const __m512i in_order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    while (count > 0 && rows_ > 0) {
      const int64_t rows = smaller(rows_, 2 * count), pitch = self.pitch_;
      const uint32_t* sums = sums_;
      int64_t at = at_, left = rows;
      for (; left > 1; left -= 2, sums += 2 * kColumns, at += 2 * pitch) {
        const __m512i words0 = self.words(sums, at), words1 = self.words(sums + kColumns, at + pitch);
        const __m512i bytes = _mm512_permutexvar_epi32(in_order, narrow(words0, words1));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(self.y_ + at), _mm512_castsi512_si256(bytes));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(self.y_ + at + pitch), _mm512_extracti64x4_epi64(bytes, 1));
      }
      if (left == 1) {
        const __m512i words = self.words(sums, at);
        const __m512i bytes = _mm512_permutexvar_epi32(in_order, narrow(words, words));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(self.y_ + at), _mm512_castsi512_si256(bytes));
      }
      count -= ceil_div(rows, 2);
      rows_ -= rows;
      sums_ += rows * kColumns;
      at_ += rows * pitch;
      if (rows_ == 0) {
        ++run_;
        start_run();
      }
    }
  }

 private:
  RESNET_INLINE void start_run() {
    if (run_ == tile_.runs) return;
    const AmxSums::Run& run = tile_.run[run_];
    rows_ = run.rows;
    sums_ = tile_.sums + run.row * kColumns;
    at_ = run.pixel * pitch_ + tile_.filter;
  }
  template <int kHalf>
  RESNET_INLINE __m512i finish(const uint32_t* sums, const uint8_t* r) const {
    F32 v = __builtin_convertvector((I32)load_u32(sums + kHalf * kLanes), F32) * multiplier_[kHalf];
    v = v + offset_[kHalf];
    if constexpr (kResidual != Residual::none) {
      const F32 added = load_bytes(r + kHalf * kLanes, kResidual == Residual::i8) * residual_multiplier_;
      v = v + added;
    }
    // A NaN comes out of the minimum as it went in and, like whatever is too small, becomes the least of 32 bits.
    return _mm512_cvtps_epi32(_mm512_min_ps((__m512)largest_, (__m512)v));
  }
  RESNET_INLINE __m512i words(const uint32_t* sums, int64_t at) const {
    const uint8_t* r = residual_ + (kResidual == Residual::none ? 0 : at);
    return _mm512_packs_epi32(finish<0>(sums, r), finish<1>(sums, r));
  }
  /// In each quarter four bytes of the first row, of its second half, and of the second row.
  static RESNET_INLINE __m512i narrow(__m512i words0, __m512i words1) {
    return kRange == AmxRange::i8 ? _mm512_packs_epi16(words0, words1) : _mm512_packus_epi16(words0, words1);
  }

  const AmxSums& tile_;
  int64_t pitch_;
  const uint8_t* residual_;
  uint8_t* y_;
  F32 residual_multiplier_, largest_, multiplier_[2], offset_[2];
  int64_t run_ = 0, rows_ = 0, at_ = 0;  ///< rows: left of the run
  const uint32_t* sums_ = nullptr;
};

/// A thread's tiles. The sums of each are written between the products of the next.
template <Residual kResidual, AmxRange kRange>
struct AmxPipe {
  const QuantizedConvArgs& args;
  int64_t pitch;
  AmxSums sums[2];
  int turn = 0;

  AmxPipe(const QuantizedConvArgs& arguments, int64_t K) : args(arguments), pitch(K) {}
  ~AmxPipe() { write(sums[1 - turn]); }
  AmxPipe(const AmxPipe&) = delete;
  AmxPipe& operator=(const AmxPipe&) = delete;

  /// The rows from `a` on times the sliver b. The caller then says where the result belongs.
  AmxSums& compute(const uint8_t* a, const AmxTaps& taps, const int8_t* b, int64_t filter, int64_t filters) {
    AmxSums &tile = sums[turn], &last = sums[1 - turn];
    turn = 1 - turn;
    const auto multiply = [&](auto streamed, const auto& meanwhile) {
      amx_begin();
      const uint8_t* at = a;
      for (int64_t piece = 0; piece < taps.pieces; ++piece, at += taps.gap) {
        for (int64_t step = 0; step < taps.steps; ++step, at += kAmxStep, b += kAmxStep * kColumns) {
          amx_step<streamed.kValue>(at, taps.stride, b);
          meanwhile();
        }
      }
      amx_end(tile.sums);
    };
    const auto products = [&](const auto& meanwhile) {
      taps.streamed ? multiply(Streamed<true>(), meanwhile) : multiply(Streamed<false>(), meanwhile);
    };
    if (saturated(last)) {
      AmxWriter<kResidual, kRange> writer(args, pitch, last);
      const int64_t steps = taps.pieces * taps.steps, count = ceil_div(kAmxRows / 2, steps);
      if (steps < kFewSteps) {
        products([] {});
      } else {
        products([&] { writer.pairs(count); });
      }
      writer.pairs(kAmxRows);
    } else {
      products([] {});
      write(last);
    }
    tile.filter = filter;
    tile.filters = smaller(kColumns, filters);
    tile.runs = 0;
    return tile;
  }

  template <bool kIs>
  struct Streamed {
    static constexpr bool kValue = kIs;
  };
  static constexpr int64_t kFewSteps = 4;
  static bool saturated(const AmxSums& tile) { return kRange != AmxRange::other && tile.filters == kColumns; }
  void write(const AmxSums& tile) const {
    if (tile.runs == 0) return;
    if (saturated(tile)) return AmxWriter<kResidual, kRange>(args, pitch, tile).pairs(kAmxRows);
    const Epilogue<kResidual> epilogue(args, pitch, tile.filter, tile.filters);
    for (int64_t i = 0; i < tile.runs; ++i)
      epilogue.write_rows(tile.sums + tile.run[i].row * kColumns, tile.run[i].rows, tile.run[i].pixel);
  }
};

/// Pixels of x are read where they lie (1x1), or from a copy with padding around it, whose neighbours are a tile's rows
/// (stride 1), or from a panel that their taps are gathered in.
struct Tiled : Direct<AmxBytes> {
  /// Of a thread's second cache: a panel or band, and the weights that go over it.
  static constexpr int64_t kPanelBytes = 1 << 20, kLeastPanel = 24 << 10, kBandBytes = 96 << 10,
                           kWeightBytes = 384 << 10;
  static constexpr int64_t kFirstCache = 40 << 10;

  int64_t blocks;                  ///< of kAmxRows pixels
  int64_t panel_blocks;            ///< of them
  int64_t padded_w, padded_bytes;  ///< pixels, and bytes, of a row with padding
  int64_t band_rows;               ///< of y, for which the rows of x with padding fit kBandBytes

  explicit Tiled(const QuantizedConvSize& size)
      : Direct(size),
        blocks(ceil_div(rows, kAmxRows)),
        panel_blocks(larger(1, panel_limit() / (kAmxRows * stride))),
        padded_w(size.W + 2 * size.pad_w),
        padded_bytes(padded_w * size.C) {
    const int64_t fit = larger(1, kBandBytes / larger(1, padded_bytes) - (p.R - 1));
    band_rows = ceil_div(p.Ho, ceil_div(p.Ho, fit));
  }

  /// A panel is read as often as the weights are, so it may be as large.
  int64_t panel_limit() const {
    return larger(kLeastPanel, smaller(kPanelBytes, static_cast<int64_t>(packed_bytes()) / p.groups));
  }
  /// Whether to pad. The tiles then compute columns between one row's end and the next one's begin, too; gathering
  /// costs as much as the products of 40 filters.
  bool pads() const {
    return p.R * p.S > 1 && p.stride_h == 1 && p.stride_w == 1 && p.dilation_h == 1 && p.dilation_w == 1 &&
           p.groups == 1 && p.C % kAmxStep == 0 && p.R * padded_bytes <= kPanelBytes &&
           (padded_w - p.Wo) * p.K < 40 * p.Wo;
  }
  int64_t band_bytes() const { return (band_rows + p.R - 1) * padded_bytes + (kAmxRows + p.S) * p.C; }
  size_t thread_bytes() const {
    if (pads()) return static_cast<size_t>(round_up(band_bytes(), 64));
    return static_cast<size_t>((in_place() ? 1 : panel_blocks) * kAmxRows * stride);
  }
  size_t scratch_bytes() const { return static_cast<size_t>(p.threads) * thread_bytes(); }

  template <Residual kResidual>
  void run(const QuantizedConvArgs& args) const {
    if (args.least == 0 && args.largest == 255) return run_as<kResidual, AmxRange::u8>(args);
    if (args.least == -128 && args.largest == 127) return run_as<kResidual, AmxRange::i8>(args);
    run_as<kResidual, AmxRange::other>(args);
  }

  template <Residual kResidual, AmxRange kRange>
  void run_as(const QuantizedConvArgs& args) const {
#pragma omp parallel num_threads(p.threads)
    {
      const AmxInUse in_use;
      const int thread = omp_get_thread_num(), team = omp_get_num_threads();
      auto* own = static_cast<uint8_t*>(args.scratch) + static_cast<size_t>(thread) * thread_bytes();
      pads() ? run_padded<kResidual, kRange>(args, thread, team, own)
             : run_panels<kResidual, kRange>(args, thread, team, own);
    }
  }

  template <Residual kResidual, AmxRange kRange>
  void run_padded(const QuantizedConvArgs& args, int thread, int team, uint8_t* band) const {
    const AmxTaps places = {.stride = p.C,
                            .steps = p.S * p.C / kAmxStep,
                            .pieces = p.R,
                            .gap = padded_bytes - p.S * p.C,
                            .streamed = false};
    const Range mine = share(p.N * p.Ho, thread, team);
    AmxPipe<kResidual, kRange> pipe(args, p.K);
    for (int64_t row = mine.first; row < mine.last;) {
      const int64_t n = row / p.Ho, h = row % p.Ho;
      const int64_t count = smaller(smaller(band_rows, p.Ho - h), mine.last - row);
      pad(args, n, h - p.pad_h, count + p.R - 1, band);
      const int64_t columns = (count - 1) * padded_w + p.Wo;
      for (int64_t sliver = 0; sliver < slivers; ++sliver) {
        const int8_t* b = static_cast<const int8_t*>(args.packed) + sliver * sliver_elements();
        for (int64_t first = 0; first < columns; first += kAmxRows) {
          AmxSums& tile = pipe.compute(band + first * p.C, places, b, sliver * kColumns, filters - sliver * kColumns);
          const int64_t last = smaller(columns, first + kAmxRows);
          for (int64_t at = first; at < last;) {
            const int64_t line = at / padded_w, w = at % padded_w, some = smaller(last - at, padded_w - w);
            if (w < p.Wo)
              tile.run[tile.runs++] = {
                  .row = at - first, .rows = smaller(some, p.Wo - w), .pixel = (row + line) * p.Wo + w};
            at += some;
          }
        }
      }
      row += count;
    }
  }

  /// `count` rows of image n from h on, with padding.
  void pad(const QuantizedConvArgs& args, int64_t n, int64_t h, int64_t count, uint8_t* to) const {
    const auto fill = [&](int64_t pixels) {
      for (int64_t i = 0; i < pixels; ++i, to += p.C) copy_bytes(to, args.padding, p.C);
    };
    for (const int64_t last = h + count; h < last; ++h) {
      if (h < 0 || h >= p.H) {
        fill(padded_w);
        continue;
      }
      fill(p.pad_w);
      copy_bytes(to, args.x + (n * p.H + h) * p.W * p.C, p.W * p.C);
      to += p.W * p.C;
      fill(p.pad_w);
    }
  }

  template <Residual kResidual, AmxRange kRange>
  void run_panels(const QuantizedConvArgs& args, int thread, int team, uint8_t* gathered) const {
    // By pixels, or where these are few by filters.
    const int64_t by_pixels = ceil_div(blocks, team) * slivers, by_filters = ceil_div(slivers, team) * blocks;
    const bool pixels = by_pixels < by_filters || (by_pixels == by_filters && blocks >= slivers);
    const Range my_blocks = pixels ? share(blocks, thread, team) : Range{0, blocks};
    const Range my_slivers = pixels ? Range{0, slivers} : share(slivers, thread, team);
    for (int64_t block = my_blocks.first; block < my_blocks.last; block += panel_blocks) {
      const Range part = {block, smaller(my_blocks.last, block + panel_blocks)};
      for (int64_t group = 0; group < p.groups; ++group)
        multiply<kResidual, kRange>(args, part, my_slivers, group, gathered);
    }
  }

  template <Residual kResidual, AmxRange kRange>
  void multiply(const QuantizedConvArgs& args, const Range& part, const Range& my_slivers, int64_t group,
                uint8_t* gathered) const {
    const int64_t first = part.first * kAmxRows, last = smaller(rows, part.last * kAmxRows);
    // The last block of x may have fewer rows than a tile reads.
    const int64_t ready = in_place() ? last / kAmxRows * kAmxRows : first;
    gather(args, ready, last - ready, group, gathered);
    const auto* packed = static_cast<const int8_t*>(args.packed) + group * slivers * sliver_elements();
    const int64_t together = larger(2, kWeightBytes / sliver_elements());
    const int64_t steps = groups * AmxBytes::kGroup / kAmxStep;
    const bool streamed = kAmxRows * stride + smaller(slivers, together) * sliver_elements() > kFirstCache;
    AmxPipe<kResidual, kRange> pipe(args, p.K);
    for (int64_t from = my_slivers.first; from < my_slivers.last; from += together) {
      for (int64_t row = first; row < last; row += kAmxRows) {
        const bool there = row < ready;
        const uint8_t* a = there ? args.x + row * p.C + group * channels : gathered + (row - ready) * stride;
        for (int64_t sliver = from; sliver < smaller(my_slivers.last, from + together); ++sliver) {
          AmxSums& tile = pipe.compute(
              a, {.stride = there ? p.C : stride, .steps = steps, .pieces = 1, .gap = 0, .streamed = streamed},
              packed + sliver * sliver_elements(), group * filters + sliver * kColumns, filters - sliver * kColumns);
          tile.run[tile.runs++] = {.row = 0, .rows = smaller(kAmxRows, last - row), .pixel = row};
        }
      }
    }
  }
};

}  // namespace
}  // namespace resnet::simd::RESNET_ISA

#endif
