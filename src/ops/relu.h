#pragma once

#include <string>

#include "graph/graph.h"

namespace resnet {

/// y = max(x, 0) element by element; NaN stays NaN. May be done in place.
extern const OpDef kRelu;
/// (dy, y) -> dx = dy where y > 0, else 0; the derivative at 0 is 0, as PyTorch has it.
/// Reads y, not x, so that the forward op may overwrite x.
extern const OpDef kReluGrad;

Value relu(Value x, std::string name = {});

}  // namespace resnet
