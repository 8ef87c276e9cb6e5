#pragma once

#include <string>

#include "graph/graph.h"

namespace resnet {

/// Blur, then subsample: each channel's map is convolved with the outer product of [1, 2, 1] / 4 with itself and every
/// `stride`-th pixel kept (Zhang 2019, arXiv:1904.11486). The border is mirrored without repeating its pixel.
/// x [N,C,H,W] -> [N,C,Ho,Wo], Ho = floor((H - 1) / stride) + 1. Attributes: PoolAttrs with kernel 3x3 and pad 1x1.
/// Throws UserError: H or W < 2 (there is no pixel to mirror), stride < 1. Source: timm's BlurPool2d.
extern const OpDef kBlurPool;
/// dy -> dx of the shape in PoolGradAttrs.
extern const OpDef kBlurPoolGrad;

Value blur_pool(Value x, int64_t stride, std::string name = {});

}  // namespace resnet
