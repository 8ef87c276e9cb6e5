#pragma once

#include "passes/pass.h"

namespace resnet {

/// relu(conv2d(x, w, b))               ==>   conv2d(x, w, b) relu
/// relu(conv2d(x, w, b) + shortcut)    ==>   conv2d(x, w, b, shortcut) residual relu
/// conv2d(x, w, b?) + shortcut         ==>   conv2d(x, w, b?, shortcut) residual
/// The sum and the activation ride in the convolution's last write. Needs: an inference graph (the
/// fused form has no gradient). Run after: fold_batch_norm. Leaves alone: a convolution with another reader; before a
/// relu also one without bias, whose batch norm is still to be folded or fused.
PassReport fuse_convolution_epilogue(Graph& graph);

}  // namespace resnet
