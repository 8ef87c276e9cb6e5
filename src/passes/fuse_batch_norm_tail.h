#pragma once

#include "passes/pass.h"

namespace resnet {

/// relu(batch_norm(x))               ==>   batch_norm(x) relu
/// relu(batch_norm(x) + shortcut)    ==>   batch_norm(x, shortcut) residual relu
/// One read of x and the shortcut and one write instead of three of each. Both forms of batch_norm
/// (training and inference) are matched; the fused op has its own gradient, so the pass runs on the
/// forward graph, before gradients are taken.
/// Leaves alone: a batch norm or sum with another reader.
PassReport fuse_batch_norm_tail(Graph& graph);

}  // namespace resnet
