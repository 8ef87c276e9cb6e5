#pragma once

#include "backends/cpu/conv2d_onednn.h"

namespace resnet::cpu {

/// A weight gradient that reads an image as it was fed (row-major, few channels).
bool is_stem(const ConvProblem& problem, const CpuContext& context);

/// Our own kernel for it. oneDNN 2.6.3 would pad one channel to a block of 8 or 16 and multiply zeros: on the
/// lecture's stem that is a tenth of a training step.
std::unique_ptr<Kernel> make_stem_weight_grad(const ConvProblem& problem, const CpuContext& context);

}  // namespace resnet::cpu
