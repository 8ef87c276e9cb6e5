#pragma once
// What follows the sums of an 8-bit convolution, and the panels of pixels that they are made from.

#include "backends/cpu/simd/quantized.h"
#include "backends/cpu/simd/quantized_tile.h"

namespace resnet::simd::RESNET_ISA {
namespace {

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
      const uint8_t* r = kResidual == Residual::none ? nullptr : residual + at;
      return store_bytes(y + at, finish<0>(sum0, r), finish<1>(sum1, r));
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

}  // namespace
}  // namespace resnet::simd::RESNET_ISA
