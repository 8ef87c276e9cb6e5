#pragma once

#include <string>

#include "graph/graph.h"

namespace resnet {

/// x [N,C,H,W] -> y [N,C,Ho,Wo] and index u8 [N,C,Ho,Wo], Ho = floor((H + 2*pad - kernel) / stride) + 1.
/// Padding counts as -infinity; of equal maxima the first counts, and the last NaN wins over everything. `index` is the
/// winner's place in the window, row * kernel.w + column.
/// Throws UserError: kernel or stride < 1, pad outside [0, kernel / 2], kernel area > 255, ceil_mode, Ho or Wo < 1.
/// Source: PyTorch nn.MaxPool2d.
extern const OpDef kMaxPool;
/// (dy, index) -> dx of the shape in PoolGradAttrs.
extern const OpDef kMaxPoolGrad;

/// Output 0 of kMaxPool; the index is for the gradient.
Value max_pool(Value x, PoolAttrs attrs, std::string name = {});

}  // namespace resnet
