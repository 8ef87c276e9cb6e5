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

#if defined(RESNET_AVX512)
/// Which values y may take.
enum class Saturation { u8, i8, other };
Saturation saturation_of(const QuantizedConvArgs& p) {
  if (p.least == 0 && p.largest == 255) return Saturation::u8;
  return p.least == -128 && p.largest == 127 ? Saturation::i8 : Saturation::other;
}

/// The epilogue of 16 sums where results take all of u8, or of i8: what the packs that follow leave of these is right.
/// `r`: what is added to them.
template <Residual kResidual, Saturation kRange>
RESNET_INLINE __m512i finished(__m512i sums, F32 multiplier, F32 offset, const uint8_t* r, F32 residual_multiplier) {
  F32 v = __builtin_convertvector((I32)sums, F32) * multiplier;
  v = v + offset;
  if constexpr (kResidual != Residual::none) {
    const F32 added = load_bytes(r, kResidual == Residual::i8) * residual_multiplier;
    v = v + added;
  }
  // A NaN comes out of the minimum as it went in and, like whatever is too small, becomes the least of 32 bits.
  return _mm512_cvtps_epi32(_mm512_min_ps((__m512)splat_f32(kRange == Saturation::i8 ? 127 : 255), (__m512)v));
}

/// Two slivers' finished words, or two pixels': 32 bytes of each.
template <Saturation kRange>
RESNET_INLINE __m512i packed_bytes(__m512i words0, __m512i words1) {
  // In each quarter four bytes of the first, of its second half, and of the second.
  const __m512i quarters =
      kRange == Saturation::i8 ? _mm512_packs_epi16(words0, words1) : _mm512_packus_epi16(words0, words1);
  const __m512i in_order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_permutexvar_epi32(in_order, quarters);
}

/// The epilogue of a whole sliver, its constants in registers.
template <Residual kResidual, Saturation kRange>
class SaturatedEpilogue {
 public:
  SaturatedEpilogue(const QuantizedConvArgs& args, int64_t filter)
      : residual_(static_cast<const uint8_t*>(args.residual)),
        y_(static_cast<uint8_t*>(args.y)),
        residual_multiplier_(splat_f32(kResidual == Residual::none ? 0 : *args.residual_multiplier)) {
    for (int i = 0; i < 2; ++i) {
      multiplier_[i] = load_f32(args.multiplier + filter + i * kLanes);
      offset_[i] = load_f32(args.offset + filter + i * kLanes);
    }
  }

  /// From a pixel's sums to its results, whose first is y[at].
  RESNET_INLINE __m512i words(__m512i sum0, __m512i sum1, int64_t at) const {
    const uint8_t* r = kResidual == Residual::none ? nullptr : residual_ + at;
    return _mm512_packs_epi32(finish<0>(sum0, r), finish<1>(sum1, r));
  }
  RESNET_INLINE void write(__m256i bytes, int64_t at) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(y_ + at), bytes);
  }
  RESNET_INLINE void write_pixel(const __m512i (&sums)[2], int64_t at) const {
    const __m512i one = words(sums[0], sums[1], at);
    write(_mm512_castsi512_si256(packed_bytes<kRange>(one, one)), at);
  }

 private:
  template <int kRegister>
  RESNET_INLINE __m512i finish(__m512i sums, const uint8_t* r) const {
    return finished<kResidual, kRange>(sums, multiplier_[kRegister], offset_[kRegister],
                                       r ? r + kRegister * kLanes : nullptr, residual_multiplier_);
  }

  const uint8_t* residual_;
  uint8_t* y_;
  F32 residual_multiplier_, multiplier_[2], offset_[2];
};
#endif

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
