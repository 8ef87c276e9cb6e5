#pragma once

#include <span>

#include "graph/op.h"

namespace resnet {

/// Every op there is, listed by hand: self-registering globals vanish in static libraries.
std::span<const OpDef* const> all_ops();

}  // namespace resnet
