#pragma once

#include <string>

#include "graph/graph.h"

namespace resnet {

/// x [N,C,H,W] times a factor of each map, s [N,C,1,1], or of each image, s [N] -> like x. The first is a gate on
/// channels (squeeze-and-excitation), the second drops whole branches of images (stochastic depth).
/// Throws UserError: s of another shape.
extern const OpDef kScale;
/// (dy, x) -> ds of the shape in ShapeAttrs: dy * x summed over what shares a factor.
extern const OpDef kScaleGrad;

Value scale(Value x, Value s, std::string name = {});

}  // namespace resnet
