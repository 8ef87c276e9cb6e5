#pragma once

#include <string>

#include "graph/graph.h"

namespace resnet {

/// (running, batch, guard scalar) -> (1 - momentum) * running + momentum * scale * batch, or `running` unchanged when
/// guard (the loss) is not finite. May be done in place over `running`.
extern const OpDef kRunningAverage;

Value running_average(Value running, Value batch, Value guard, RunningAverageAttrs attrs, std::string name = {});

}  // namespace resnet
