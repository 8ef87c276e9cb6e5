#pragma once

#include <string>

#include "graph/graph.h"

namespace resnet {

/// A constant: no inputs -> FillAttrs::type with every element FillAttrs::value.
extern const OpDef kFill;

Value fill(Graph& graph, TensorType type, double value, std::string name = {});

}  // namespace resnet
