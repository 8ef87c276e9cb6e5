#pragma once
// The lecture's claim: for y'' = f(x) + g(f(x)), dy''/dw = dy/dw + dy'/dw: the gradient through a residual block is the
// shortcut's plus the branch's.

#include "lab/experiment.h"

namespace resnet {

/// At every residual sum of CIFAR nets of `depths`: the loss's gradient by the block's input through the
/// shortcut, through the branch, and as a whole, which must be their sum but for rounding; and |branch| / |shortcut| of
/// the values, before and after `steps` steps of SGD.
Report identity(const LabConfig& config, const LabObserver& observer);

}  // namespace resnet
