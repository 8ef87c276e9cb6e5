#pragma once
// The borders between f32 and 8-bit values. A real number x is stored as q with x = (q - zero) * scale.

#include "graph/graph.h"

namespace resnet {

/// y = saturate(round(x * factor[c] + zero[c])), halves to even, with the product and the sum each rounded to f32.
/// x f32 [N,C,H,W], factor f32 [C] (1 / scale), zero f32 [C] -> [N,C,H,W] of attrs.output. A NaN becomes the least
/// value. Inference only: no gradient. Source: Jacob et al. 2017 (arXiv:1712.05877), Sec. 2.1.
extern const OpDef kQuantize;

/// y = (x - zero) * scale: x u8 or i8 [N,C,H,W], scale f32 [1], zero f32 [1] -> f32 [N,C,H,W]. No gradient.
extern const OpDef kDequantize;

/// The least and the largest value of u8 or i8, in f32.
struct ByteRange {
  float least, largest;
};
ByteRange byte_range(DType dtype);

/// Element i of a u8 or i8 tensor.
int32_t byte_at(const ConstView& view, int64_t i);
/// Stores a whole number of the range.
void set_byte(const View& view, int64_t i, float value);

/// Rounds to the nearest whole number of the range, halves to even; a NaN becomes the least. What every quantised op
/// ends with.
float saturated(float value, const ByteRange& range);

}  // namespace resnet
