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

/// A thread's tiles. Twelve pixels times two slivers of filters are two tiles of registers, whose sums are rounded
/// where they are: through memory go only pairs of which one is no whole sliver, and what is cut off elsewhere than a
/// byte is.
template <Residual kResidual, Saturation kRange>
class VnniPipe {
 public:
  VnniPipe(const QuantizedConvArgs& args, int64_t K, int64_t sliver_bytes)
      : args_(args), pitch_(K), sliver_bytes_(sliver_bytes) {}

  /// Those of the next tile, to be filled before it is computed.
  TilePlaces<Vnni::kRows>& places() {
    places_.runs = 0;
    return places_;
  }

  /// The rows from `a` on times `count` slivers at b.
  void compute(const uint8_t* a, const Taps& taps, const int8_t* b, int64_t count, const TileFilters& filters) const {
    const VnniRows rows = {.stride = taps.stride, .groups = taps.steps, .pieces = taps.pieces, .gap = taps.gap};
    if (kRange == Saturation::other || filters.count < count * kColumns)
      return compute_some(a, rows, b, count, filters);
    if constexpr (kRange != Saturation::other) {
      if (count == 1) return vnni_multiply<true>(a, rows, b, Write<1>(*this, filters.first));
      vnni_multiply<true>(a, rows, b, b + sliver_bytes_, Write<2>(*this, filters.first));
    }
  }

 private:
  /// Results straight from the registers of their sums.
  template <int kSlivers>
  struct Write {
    SaturatedEpilogue<kResidual, kRange, kSlivers> epilogue;
    int64_t at[kRows];  ///< of the first filter in y; less than 0 where a row is no pixel

    Write(const VnniPipe& pipe, int64_t filter) : epilogue(pipe.args_, filter) {
      for (int64_t& place : at) place = -1;
      for (int64_t i = 0; i < pipe.places_.runs; ++i) {
        const auto& run = pipe.places_.run[i];
        for (int64_t row = 0; row < run.rows; ++row) {
          const int64_t place = (run.pixel + row) * pipe.pitch_ + filter;
          at[run.row + row] = place;
          // By the time that the results are made these lines have come from memory.
          __builtin_prefetch(static_cast<const uint8_t*>(pipe.args_.y) + place, 1, 3);
          if constexpr (kResidual != Residual::none)
            __builtin_prefetch(static_cast<const uint8_t*>(pipe.args_.residual) + place, 0, 3);
        }
      }
    }
    RESNET_INLINE void operator()(int row, const __m512i (&sums)[2 * kSlivers]) const {
      if (at[row] >= 0) epilogue.write_pixel(sums, at[row]);
    }
  };

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
};

}  // namespace
}  // namespace resnet::simd::RESNET_ISA

#endif
