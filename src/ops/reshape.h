#pragma once

#include <string>

#include "graph/graph.h"

namespace resnet {

/// The same elements, row-major, under the shape in ShapeAttrs. Throws UserError when the counts differ.
extern const OpDef kReshape;

Value reshape(Value x, Shape shape, std::string name = {});
/// [N,...] -> [N, product of the rest].
Value flatten(Value x, std::string name = {});

}  // namespace resnet
