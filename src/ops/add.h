#pragma once

#include <string>

#include "graph/graph.h"

namespace resnet {

/// y = a + b, element by element; no broadcasting. May be done in place over either input.
/// Throws UserError when the types differ.
extern const OpDef kAdd;

Value add(Value a, Value b, std::string name = {});
Value operator+(Value a, Value b);

}  // namespace resnet
