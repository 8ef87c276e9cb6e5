#pragma once

#include <string>

#include "graph/graph.h"

namespace resnet {

/// x [N,C,H,W] -> mean over H and W [N,C,1,1].
extern const OpDef kGlobalAvgPool;
/// dy [N,C,1,1] -> dx of the shape in ShapeAttrs.
extern const OpDef kGlobalAvgPoolGrad;

Value global_avg_pool(Value x, std::string name = {});

}  // namespace resnet
