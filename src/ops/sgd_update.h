#pragma once

#include <string>

#include "graph/graph.h"

namespace resnet {

/// One step of torch.optim.SGD: g = grad + weight_decay * param; with momentum, buffer' = momentum * buffer + g and
/// g = buffer' (nesterov: g + momentum * buffer'); param' = param - lr * g.
/// param, grad, lr scalar, guard scalar, buffer if attrs.momentum != 0 -> param', buffer'?.
/// When guard (the loss) is not finite, param' = param and buffer' = buffer. May be done in place.
extern const OpDef kSgdUpdate;

struct SgdUpdateResult {
  Value param;
  Value buffer;  ///< none without momentum
};

/// `buffer` is none exactly when attrs.momentum is 0.
SgdUpdateResult sgd_update(Value param, Value grad, Value lr, Value guard, Value buffer, SgdAttrs attrs,
                           std::string name = {});

}  // namespace resnet
