#pragma once
// The lecture's claim: residual connections make very deep nets easy to train, even one thousand layers (He et al.
// 2015, Sec. 4.2, "Exploring Over 1000 layers").

#include "lab/experiment.h"

namespace resnet {

/// Trains the CIFAR net of `layers` layers (1202) for `steps` steps: residual, residual with every block started as the
/// identity (last gamma 0), and plain. Reports the loss, the memory, and how long making the program took. The rate is
/// 0.01 until the training error of the last 20 steps is below 80 %, then 0.1, as the paper has it.
Report depth(const LabConfig& config, const LabObserver& observer);

}  // namespace resnet
