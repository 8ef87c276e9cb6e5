#pragma once
// The lecture's claim: more layers help for sure only where the larger class of functions contains the smaller one. A
// residual net contains every shallower one, for a block whose branch is 0 is the identity; a plain net's added layers
// would have to learn it.

#include <utility>

#include "lab/experiment.h"

namespace resnet {

/// The shallow and the deep net's. Throws UserError unless `depths` is empty or two, ascending.
std::pair<int64_t, int64_t> nesting_depths(const LabConfig& config);

/// Trains a shallow CIFAR net (the first of `depths`) for `steps` steps, builds the deeper one (the second) around its
/// values, residual with gamma 0 at the end of each added block, plain with added layers as they start, and compares
/// the logits of test images and the loss; then trains shallow and deep on from there, on the same batches.
Report nesting(const LabConfig& config, const LabObserver& observer);

}  // namespace resnet
