#pragma once
// The lecture's claim: ResNet shaped later networks, convolutional and fully connected alike.

#include "lab/experiment.h"

namespace resnet {

/// Residual and plain fully connected nets of `depths`, without and with batch norm: the gradient by each layer's
/// weight at initialisation, and the training loss over `steps` steps.
Report mlp(const LabConfig& config, const LabObserver& observer);

}  // namespace resnet
