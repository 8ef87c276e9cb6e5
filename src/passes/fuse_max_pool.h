#pragma once

#include "passes/pass.h"

namespace resnet {

/// max_pool(conv2d(x, w, b))   ==>   conv2d_max_pool(x, w, b)
/// The convolution's map, the largest of most residual networks, need not exist as a whole. Whether a backend computes
/// it so is its own choice. Needs: an inference graph (the fused form has no gradient). Run after:
/// fuse_convolution_epilogue. Leaves alone: a convolution with a residual or another reader, a pool whose index is
/// read.
PassReport fuse_max_pool(Graph& graph);

}  // namespace resnet
