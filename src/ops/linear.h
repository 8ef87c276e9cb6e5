#pragma once

#include <string>

#include "graph/graph.h"

namespace resnet {

/// y = x w^T + bias: x [N,I], w [O,I], bias [O] if attrs.bias -> [N,O]. Source: PyTorch nn.Linear.
/// Throws UserError when the shapes disagree.
extern const OpDef kLinear;
/// (dy [N,O], w [O,I]) -> dx [N,I].
extern const OpDef kLinearInputGrad;
/// (x [N,I], dy [N,O]) -> dw [O,I].
extern const OpDef kLinearWeightGrad;

/// `bias` may be none.
Value linear(Value x, Value w, Value bias, std::string name = {});

}  // namespace resnet
