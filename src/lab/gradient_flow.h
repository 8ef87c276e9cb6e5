#pragma once
// The lecture's claim: for y' = g(f(x)), dy'/dw is a product of small numbers and vanishes with depth; a shortcut adds
// the short path's gradient, so that it does not (He et al. 2015; Balduzzi et al. 2017).

#include "lab/experiment.h"

namespace resnet {

/// The L2 norm of the loss's gradient by each layer's weight, of plain and residual CIFAR nets of `depths`, with and
/// without batch norm: at initialisation, and after `steps` steps of SGD (nets of up to 200 layers; deeper ones where
/// `steps` is given). Without batch norm, weights start as PyTorch's default has it.
Report gradient_flow(const LabConfig& config, const LabObserver& observer);

}  // namespace resnet
