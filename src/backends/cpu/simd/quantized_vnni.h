#pragma once
// Convolution of bytes by AVX-512 VNNI: one instruction multiplies four taps of a pixel by those of 16 filters.

#include "backends/cpu/simd/quantized_tiled.h"

#if defined(RESNET_AVX512)

namespace resnet::simd::RESNET_ISA {
namespace {

template <Residual kResidual, Saturation kRange>
class VnniPipe;

struct Vnni {
  static constexpr int64_t kRows = simd::RESNET_ISA::kRows, kStep = 4;
  static constexpr int64_t kSlivers = 2;             // at once
  static constexpr int64_t kPanelBytes = 512 << 10;  // of a thread's second cache
  static constexpr int64_t kWeightBytes = 24 << 10;  // of the first cache: each tile reads them all
  static constexpr int64_t kGatherFilters = 8;

  struct InUse {};
  static bool streams(int64_t /*bytes*/) { return false; }
  template <Residual kResidual, Saturation kRange>
  using Pipe = VnniPipe<kResidual, kRange>;
};

/// Sums of half a tile's pixels, two slivers of each, and where their results go.
struct VnniSums {
  static constexpr int kPixels = kRows / 2;
  alignas(64) uint32_t sums[kPixels][2 * kColumns];
  int64_t at[kPixels];  ///< of the first filter in y; less than 0 where a row is no pixel
  int64_t filter = 0;
  bool full = false;
};

/// Writes the results of such sums, a pixel at a time.
template <Residual kResidual, Saturation kRange>
class VnniWriter {
 public:
  VnniWriter(const QuantizedConvArgs& args, const VnniSums& tile)
      : tile_(tile),
        multiplier_(args.multiplier + tile.filter),
        offset_(args.offset + tile.filter),
        residual_(static_cast<const uint8_t*>(args.residual)),
        y_(static_cast<uint8_t*>(args.y)),
        residual_multiplier_(splat_f32(kResidual == Residual::none ? 0 : *args.residual_multiplier)),
        row_(tile.full ? 0 : VnniSums::kPixels) {}

  RESNET_INLINE void next() {
    if (row_ >= VnniSums::kPixels) return;
    if (const int64_t at = tile_.at[row_]; at >= 0) {
      const __m512i words0 = _mm512_packs_epi32(finish<0>(at), finish<1>(at));
      const __m512i words1 = _mm512_packs_epi32(finish<2>(at), finish<3>(at));
      _mm512_storeu_si512(y_ + at, packed_bytes<kRange>(words0, words1));
    }
    ++row_;
  }
  RESNET_INLINE void rest() {
    while (row_ < VnniSums::kPixels) next();
  }

 private:
  template <int kRegister>
  RESNET_INLINE __m512i finish(int64_t at) const {
    constexpr int kFirst = kRegister * kLanes;
    const uint8_t* r = kResidual == Residual::none ? nullptr : residual_ + at + kFirst;
    return finished<kResidual, kRange>((__m512i)load_u32(tile_.sums[row_] + kFirst), load_f32(multiplier_ + kFirst),
                                       load_f32(offset_ + kFirst), r, residual_multiplier_);
  }

  const VnniSums& tile_;
  const float *multiplier_, *offset_;
  const uint8_t* residual_;
  uint8_t* y_;
  F32 residual_multiplier_;
  int64_t row_;
};

/// A thread's tiles. Twelve pixels times two slivers of filters are two tiles of registers. The sums of each wait in
/// memory and become results while the next one's products are made: the two need different units of some processors
/// (docs/decisions/0026-int8-by-vnni-in-registers.md). Twelve pixels times one sliver are rounded in their registers,
/// and pairs of which one is no whole sliver, or whose results are cut off elsewhere than a byte is, right after them.
template <Residual kResidual, Saturation kRange>
class VnniPipe {
 public:
  VnniPipe(const QuantizedConvArgs& args, int64_t K, int64_t sliver_bytes)
      : args_(args), pitch_(K), sliver_bytes_(sliver_bytes) {}
  ~VnniPipe() {
    if constexpr (kRange != Saturation::other) Writer(args_, sums_[1 - turn_]).rest();
  }
  VnniPipe(const VnniPipe&) = delete;
  VnniPipe& operator=(const VnniPipe&) = delete;

  /// Those of the next tile, to be filled before it is computed.
  TilePlaces<Vnni::kRows>& places() {
    places_.runs = 0;
    return places_;
  }

  /// The rows from `a` on times `count` slivers at b.
  void compute(const uint8_t* a, const Taps& taps, const int8_t* b, int64_t count, const TileFilters& filters) {
    const VnniRows rows = {.stride = taps.stride, .groups = taps.steps, .pieces = taps.pieces, .gap = taps.gap};
    if (kRange == Saturation::other || filters.count < count * kColumns)
      return compute_some(a, rows, b, count, filters);
    if constexpr (kRange != Saturation::other) {
      int64_t at[kRows];
      look_up(filters.first, at);
      if (count == 2) return compute_pair(a, rows, b, filters.first, at);
      const SaturatedEpilogue<kResidual, kRange> epilogue(args_, filters.first);
      vnni_multiply<true>(a, rows, b, [&](int row, const __m512i(&sums)[2]) {
        if (at[row] >= 0) epilogue.write_pixel(sums, at[row]);
      });
    }
  }

 private:
  typedef VnniWriter<kResidual, kRange> Writer;

  /// Where in y the results of a tile's rows from `filter` on lie; less than 0 for what is no pixel. By the time that
  /// they are made these lines have come from memory.
  RESNET_INLINE void look_up(int64_t filter, int64_t (&at)[kRows]) const {
    for (int64_t& place : at) place = -1;
    for (int64_t i = 0; i < places_.runs; ++i) {
      const auto& run = places_.run[i];
      for (int64_t row = 0; row < run.rows; ++row) {
        const int64_t place = (run.pixel + row) * pitch_ + filter;
        at[run.row + row] = place;
        __builtin_prefetch(static_cast<const uint8_t*>(args_.y) + place, 1, 3);
        if constexpr (kResidual != Residual::none)
          __builtin_prefetch(static_cast<const uint8_t*>(args_.residual) + place, 0, 3);
      }
    }
  }

  RESNET_TARGET_VNNI void compute_pair(const uint8_t* a, const VnniRows& rows, const int8_t* b, int64_t filter,
                                       const int64_t (&at)[kRows]) {
    constexpr int kPixels = VnniSums::kPixels;
    const int64_t part = ceil_div(rows.groups, ceil_div(kPixels, rows.pieces));
    for (int first = 0; first < kRows; first += kPixels) {
      VnniSums& tile = sums_[turn_];
      Writer last(args_, sums_[1 - turn_]);
      const auto keep = [&](int row, const __m512i(&sums)[4]) {
        RESNET_UNROLL
        for (int j = 0; j < 4; ++j) _mm512_storeu_si512(tile.sums[row] + j * kLanes, sums[j]);
      };
      vnni_tile<true, kPixels, 2>(a + first * rows.stride, rows, {b, b + sliver_bytes_}, keep, part,
                                  [&] { last.next(); });
      last.rest();
      for (int i = 0; i < kPixels; ++i) tile.at[i] = at[first + i];
      tile.filter = filter;
      tile.full = true;
      turn_ = 1 - turn_;
    }
  }

  void compute_some(const uint8_t* a, const VnniRows& rows, const int8_t* b, int64_t count,
                    const TileFilters& filters) const {
    alignas(64) uint32_t sums[Vnni::kSlivers][kRows * kColumns];
    const VnniStore store = {{sums[0], sums[1]}};
    count == 1 ? vnni_multiply<true>(a, rows, b, store) : vnni_multiply<true>(a, rows, b, b + sliver_bytes_, store);
    for (int64_t sliver = 0; sliver < count; ++sliver) {
      const int64_t k = sliver * kColumns;
      const Epilogue<kResidual> epilogue(args_, pitch_, filters.first + k, smaller(kColumns, filters.count - k));
      for (int64_t i = 0; i < places_.runs; ++i) {
        const auto& run = places_.run[i];
        epilogue.write_rows(sums[sliver] + run.row * kColumns, run.rows, run.pixel);
      }
    }
  }

  const QuantizedConvArgs& args_;
  int64_t pitch_, sliver_bytes_;
  TilePlaces<Vnni::kRows> places_;
  VnniSums sums_[2];
  int turn_ = 0;
};

}  // namespace
}  // namespace resnet::simd::RESNET_ISA

#endif
