#pragma once

#include <string>

#include "graph/graph.h"

namespace resnet {

/// Sum over all axes but the second: [N,C,H,W] or [N,C] -> [C]. The gradient of a bias.
extern const OpDef kChannelSum;

Value channel_sum(Value x, std::string name = {});

}  // namespace resnet
