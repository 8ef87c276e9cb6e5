#pragma once
// Pooling of 8-bit values.

#include "graph/graph.h"

namespace resnet {

/// The maximum over windows, the padding left out: x u8 or i8 [N,C,H,W] -> the same type [N,C,Ho,Wo], which stands for
/// the maximum of the real numbers, as the scale is above 0. Attributes and shape as max_pool; no index, no gradient.
extern const OpDef kQuantizedMaxPool;

/// The mean of each map as a real number: x u8 or i8 [N,C,H,W], scale f32 [1] -> f32 [N,C,1,1],
/// y = (sum of x) * (scale / (H * W)), each step rounded to f32. No gradient.
extern const OpDef kQuantizedGlobalAvgPool;

}  // namespace resnet
