#pragma once

#include <string>

#include "graph/graph.h"

namespace resnet {

/// x (any shape) -> scalar of its dtype: sqrt(sum of x_i^2), squared, added and rooted in double, so that neither the
/// squares of small gradients nor those of large ones leave f32's range. A probe; it has no gradient itself.
extern const OpDef kL2Norm;

Value l2_norm(Value x, std::string name = {});

}  // namespace resnet
