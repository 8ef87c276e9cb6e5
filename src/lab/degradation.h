#pragma once
// The lecture's claim: with plain nets, more layers make even the training error worse (He et al. 2015, Fig. 1 and 6);
// with residual nets they do not.

#include "lab/experiment.h"

namespace resnet {

/// Trains plain and residual CIFAR nets of `depths` with the paper's recipe (Sec. 4.2) over `seeds` seeds and compares
/// their errors epoch by epoch. Each net is a run of its own under OUTPUT/runs, resumed exactly where it was stopped.
Report degradation(const LabConfig& config, const LabObserver& observer);

}  // namespace resnet
