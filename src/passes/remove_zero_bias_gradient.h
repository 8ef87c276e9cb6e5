#pragma once

#include "passes/pass.h"

namespace resnet {

/// channel_sum(batch_norm_grad(...).dx)   ==>   fill 0
/// In training batch norm removes each channel's mean, so a bias before it has gradient zero: the sum
/// of dx over N, H, W cancels exactly (Ioffe and Szegedy 2015, Sec. 3.2). Computing it would read dx
/// once more to find rounding noise. Leaves alone: inference statistics, where the sum is not zero.
PassReport remove_zero_bias_gradient(Graph& graph);

}  // namespace resnet
