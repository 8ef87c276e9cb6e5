#pragma once

#include <map>
#include <string>

#include "base/tensor.h"
#include "passes/fold_batch_norm.h"

namespace resnet {

/// The weight and bias that FoldedConvolution's formula gives, computed in double and added to `values` in f32, which
/// holds the model's own.
void add_folded(const FoldedConvolution& f, std::map<std::string, Tensor>& values);

}  // namespace resnet
