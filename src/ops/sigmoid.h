#pragma once

#include <string>

#include "graph/graph.h"

namespace resnet {

/// y = 1 / (1 + exp(-x)), any shape.
extern const OpDef kSigmoid;
/// (dy, y) -> dy * y * (1 - y).
extern const OpDef kSigmoidGrad;

Value sigmoid(Value x, std::string name = {});

}  // namespace resnet
