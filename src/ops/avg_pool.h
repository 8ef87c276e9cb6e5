#pragma once

#include <string>

#include "graph/graph.h"

namespace resnet {

/// x [N,C,H,W] -> mean over each window [N,C,Ho,Wo], Ho = floor((H + 2*pad - kernel) / stride) + 1.
/// Padding is zero and counts in the divisor unless attrs.count_include_pad is false. With attrs.ceil_mode the quotient
/// is rounded up, as long as each window begins inside the image or its first padding; a window's elements behind the
/// padded edge never count.
/// Throws UserError: kernel or stride < 1, pad outside [0, kernel / 2], Ho or Wo < 1. Source: PyTorch nn.AvgPool2d.
extern const OpDef kAvgPool;
/// dy -> dx of the shape in PoolGradAttrs.
extern const OpDef kAvgPoolGrad;

Value avg_pool(Value x, PoolAttrs attrs, std::string name = {});

}  // namespace resnet
