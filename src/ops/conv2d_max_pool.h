#pragma once

#include "graph/graph.h"

namespace resnet {

/// max_pool(conv2d(x, w, bias?)), with the convolution's relu where it has one: the stem of most residual networks
/// without its largest map. x [N,C,H,W], w [K,C/groups,R,S], bias [K]? -> [N,K,Po,Qo], the shapes of kConv2d and
/// kMaxPool. Made by the pass fuse_max_pool, for inference: it has no gradient, and no index for one.
/// Throws UserError as kConv2d and kMaxPool do.
extern const OpDef kConv2dMaxPool;

}  // namespace resnet
