#pragma once
// Register tiles of AMX, whose registers are two-dimensional: one instruction multiplies 64 taps of 16 pixels by those
// of 16 filters.

#include "backends/cpu/simd/isa_macros.h"

#ifdef RESNET_AMX

#include "backends/cpu/simd/quantized_tiled.h"

namespace resnet::simd::RESNET_ISA {
namespace {

template <Residual kResidual, Saturation kRange>
class AmxPipe;

/// Two by two registers of sums.
struct Amx {
  static constexpr int64_t kRows = 32, kStep = 64, kSlivers = 1;
  static constexpr int64_t kPanelBytes = 1 << 20, kWeightBytes = 384 << 10;  // of a thread's second cache
  static constexpr int64_t kGatherFilters = 40;
  /// Whether rows and weights of so many bytes are more than the first cache holds.
  static bool streams(int64_t bytes) { return bytes > 40 << 10; }
  static_assert(kColumns == 32);

  template <Residual kResidual, Saturation kRange>
  using Pipe = AmxPipe<kResidual, kRange>;

#ifdef RESNET_EMULATE_AVX512
  struct InUse {};

  template <class Meanwhile>
  static void multiply(const uint8_t* a, const Taps& taps, const int8_t* b, uint32_t* sums,
                       const Meanwhile& meanwhile) {
    for (int64_t i = 0; i < kRows * kColumns; ++i) sums[i] = 0;
    for (int64_t piece = 0; piece < taps.pieces; ++piece, a += taps.gap) {
      for (int64_t step = 0; step < taps.steps; ++step, a += kStep, b += kStep * kColumns) {
        for (int64_t row = 0; row < kRows; ++row) {
          for (int64_t tap = 0; tap < kStep; ++tap) {
            const int8_t* weights = b + tap / 4 * 4 * kColumns + tap % 4;
            for (int64_t k = 0; k < kColumns; ++k)
              sums[row * kColumns + k] += static_cast<uint32_t>(a[row * taps.stride + tap] * weights[4 * k]);
          }
        }
        meanwhile();
      }
    }
  }
#else
  // In assembly, as GCC 12's intrinsics do not tell the compiler which memory they read and write.

  /// While it lives its thread may use the tile registers.
  struct InUse {
    /// Palette 1: eight registers of 16 rows of 64 bytes.
    struct alignas(64) Configuration {
      uint8_t palette = 1, start = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    };
    static_assert(sizeof(Configuration) == 64);

    InUse() {
      static constexpr Configuration kConfiguration;
      asm volatile("ldtilecfg %0" : : "m"(kConfiguration));
    }
    ~InUse() { asm volatile("tilerelease"); }
    InUse(const InUse&) = delete;
    InUse& operator=(const InUse&) = delete;
  };

  template <class Meanwhile>
  static RESNET_INLINE void multiply(const uint8_t* a, const Taps& taps, const int8_t* b, uint32_t* sums,
                                     const Meanwhile& meanwhile) {
    taps.streamed ? multiply_as<true>(a, taps, b, sums, meanwhile) : multiply_as<false>(a, taps, b, sums, meanwhile);
  }

 private:
  template <bool kStreamed, class Meanwhile>
  static RESNET_INLINE void multiply_as(const uint8_t* a, const Taps& taps, const int8_t* b, uint32_t* sums,
                                        const Meanwhile& meanwhile) {
    begin();
    for (int64_t piece = 0; piece < taps.pieces; ++piece, a += taps.gap) {
      for (int64_t step = 0; step < taps.steps; ++step, a += kStep, b += kStep * kColumns) {
        step_of<kStreamed>(a, taps.stride, b);
        meanwhile();
      }
    }
    end(sums);
  }

  /// Nothing else uses these registers until the end.
  static RESNET_INLINE void begin() {
    asm volatile("tilezero %tmm0\n\ttilezero %tmm1\n\ttilezero %tmm2\n\ttilezero %tmm3");
  }
  /// Adds the products of kStep taps: of rows `stride` bytes apart with the next part of a sliver, which with
  /// `kStreamed` does not take the first cache from the rows.
  template <bool kStreamed>
  static RESNET_INLINE void step_of(const uint8_t* a, int64_t stride, const int8_t* b) {
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
  static RESNET_INLINE void end(uint32_t* c) {
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
};

/// The sums of a tile, and whose they are.
struct AmxSums {
  alignas(64) uint32_t sums[Amx::kRows * kColumns];
  TileFilters filters = {.first = 0, .count = 0};
  TilePlaces<Amx::kRows> places;
};

/// Writes the sums of a tile whose results are saturated, as much at a time as is asked for: two rows at once fill a
/// register with bytes.
template <Residual kResidual, Saturation kRange>
class AmxWriter {
 public:
  AmxWriter(const QuantizedConvArgs& args, int64_t K, const AmxSums& sums)
      : tile_(sums), pitch_(K), epilogue_(args, sums.filters.first) {
    start_run();
  }

  /// The next `count` pairs of rows, as far as there are any.
  RESNET_INLINE void pairs(int64_t count) {
    const Saturated epilogue = epilogue_;  // in registers: bytes of y might be anything's
    const int64_t pitch = pitch_;
    while (count > 0 && rows_ > 0) {
      const int64_t rows = smaller(rows_, 2 * count);
      const uint32_t* sums = sums_;
      int64_t at = at_, left = rows;
      for (; left > 1; left -= 2, sums += 2 * kColumns, at += 2 * pitch) {
        const __m512i bytes =
            packed_bytes<kRange>(words(epilogue, sums, at), words(epilogue, sums + kColumns, at + pitch));
        epilogue.write(_mm512_castsi512_si256(bytes), at);
        epilogue.write(_mm512_extracti64x4_epi64(bytes, 1), at + pitch);
      }
      if (left == 1) {
        const __m512i one = words(epilogue, sums, at);
        epilogue.write(_mm512_castsi512_si256(packed_bytes<kRange>(one, one)), at);
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
  typedef SaturatedEpilogue<kResidual, kRange> Saturated;
  static RESNET_INLINE __m512i words(const Saturated& epilogue, const uint32_t* sums, int64_t at) {
    return epilogue.words((__m512i)load_u32(sums), (__m512i)load_u32(sums + kLanes), at);
  }
  RESNET_INLINE void start_run() {
    if (run_ == tile_.places.runs) return;
    const auto& run = tile_.places.run[run_];
    rows_ = run.rows;
    sums_ = tile_.sums + run.row * kColumns;
    at_ = run.pixel * pitch_ + tile_.filters.first;
  }

  const AmxSums& tile_;
  int64_t pitch_;
  Saturated epilogue_;
  int64_t run_ = 0, rows_ = 0, at_ = 0;  ///< rows: left of the run
  const uint32_t* sums_ = nullptr;
};

/// A thread's tiles. AMX does eight times VNNI's products, so that what surrounds them takes most of the time: the sums
/// of each tile are rounded while the next ones are made.
template <Residual kResidual, Saturation kRange>
class AmxPipe {
 public:
  AmxPipe(const QuantizedConvArgs& args, int64_t K, int64_t /*sliver_bytes*/) : args_(args), pitch_(K) {}
  ~AmxPipe() { write(sums_[1 - turn_]); }
  AmxPipe(const AmxPipe&) = delete;
  AmxPipe& operator=(const AmxPipe&) = delete;

  /// Those of the next tile, to be filled before it is computed.
  TilePlaces<Amx::kRows>& places() {
    TilePlaces<Amx::kRows>& next = sums_[turn_].places;
    next.runs = 0;
    return next;
  }

  /// The rows from `a` on times the sliver b.
  void compute(const uint8_t* a, const Taps& taps, const int8_t* b, int64_t /*count*/, const TileFilters& filters) {
    AmxSums &tile = sums_[turn_], &last = sums_[1 - turn_];
    turn_ = 1 - turn_;
    const int64_t steps = taps.pieces * taps.steps;
    if (saturated(last)) {
      AmxWriter<kResidual, kRange> writer(args_, pitch_, last);
      const int64_t count = ceil_div(Amx::kRows / 2, steps);
      if (steps < kFewSteps) {
        Amx::multiply(a, taps, b, tile.sums, [] {});
      } else {
        Amx::multiply(a, taps, b, tile.sums, [&] { writer.pairs(count); });
      }
      writer.pairs(Amx::kRows);
    } else {
      Amx::multiply(a, taps, b, tile.sums, [] {});
      write(last);
    }
    tile.filters = {.first = filters.first, .count = smaller(kColumns, filters.count)};
  }

 private:
  static constexpr int64_t kFewSteps = 4;
  static bool saturated(const AmxSums& tile) { return kRange != Saturation::other && tile.filters.count == kColumns; }
  void write(const AmxSums& tile) const {
    if (tile.places.runs == 0) return;
    if (saturated(tile)) return AmxWriter<kResidual, kRange>(args_, pitch_, tile).pairs(Amx::kRows);
    const Epilogue<kResidual> epilogue(args_, pitch_, tile.filters.first, tile.filters.count);
    for (int64_t i = 0; i < tile.places.runs; ++i) {
      const auto& run = tile.places.run[i];
      epilogue.write_rows(tile.sums + run.row * kColumns, run.rows, run.pixel);
    }
  }

  const QuantizedConvArgs& args_;
  int64_t pitch_;
  AmxSums sums_[2];
  int turn_ = 0;
};

}  // namespace
}  // namespace resnet::simd::RESNET_ISA

#endif
