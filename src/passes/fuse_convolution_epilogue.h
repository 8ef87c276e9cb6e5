#pragma once

#include "passes/pass.h"

namespace resnet {

/// relu(conv2d(x, w, b))               ==>   conv2d(x, w, b) relu
/// relu(conv2d(x, w, b) + shortcut)    ==>   conv2d(x, w, b, shortcut) residual relu
/// The sum and the activation ride in the convolution's last write. Needs: an inference graph (the
/// fused form has no gradient). Run after: fold_batch_norm. Leaves alone: a convolution without bias
/// (a residual would have no fixed place), or with another reader.
PassReport fuse_convolution_epilogue(Graph& graph);

}  // namespace resnet
