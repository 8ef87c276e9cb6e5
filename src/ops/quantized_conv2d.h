#pragma once
// Convolution of 8-bit values with 8-bit weights.

#include "graph/graph.h"

namespace resnet {

/// sum   = the cross-correlation of conv2d over whole numbers, exact
/// y     = saturate(round(sum * multiplier[k] + offset[k] (+ residual * residual_multiplier)))
/// Each product and sum of the second line is rounded to f32, in the order written; halves are rounded to even, and a
/// NaN becomes the least value. So every machine gives the same bytes.
/// Inputs: x u8 [N,C,H,W], w i8 [K,C/groups,R,S], multiplier f32 [K], offset f32 [K], padding u8 [C] (what surrounds
/// the map, in each channel: the value that stands for zero), and if attrs.conv.residual: residual u8 or i8
/// [N,K,Ho,Wo], residual_multiplier f32 [1] -> [N,K,Ho,Wo] of attrs.output. With attrs.conv.relu, or u8, nothing is
/// below 0. With x = (q - zero) * scale_x, w = q_w * scale_w[k] and y = q_y * scale_y: multiplier = scale_x * scale_w /
/// scale_y, offset = (bias - scale_x * scale_w * zero * (sum of q_w)) / scale_y. Throws UserError as conv2d, and when a
/// filter has so many taps (over 65,536) that a sum could pass 31 bits. Inference only: no gradient. Source: Jacob et
/// al. 2017 (arXiv:1712.05877), Sec. 2.2 to 2.4.
extern const OpDef kQuantizedConv2d;

/// The most taps, C/groups * R * S, of a filter: 255 * 128 * taps fits 31 bits.
inline constexpr int64_t kMostQuantizedTaps = 65536;

}  // namespace resnet
