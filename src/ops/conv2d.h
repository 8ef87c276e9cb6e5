#pragma once
// Two-dimensional convolution and its gradients.

#include <string>

#include "graph/graph.h"

namespace resnet {

/// Cross-correlation (kernel not flipped). stride, pad, dilation in pixels; padding is zero.
/// x [N,C,H,W], w [K,C/groups,R,S], bias [K]? -> [N,K,Ho,Wo], Ho = floor((H + 2*pad - dilation*(R-1) - 1) / stride)
/// + 1. Inputs: x, w, bias if attrs.bias, residual [N,K,Ho,Wo] if attrs.residual; y = relu?(conv + bias? + residual?).
/// Throws UserError: ranks, C != w.C*groups, K % groups, stride < 1, pad < 0, dilation < 1, Ho < 1 or Wo < 1.
/// The fused residual and relu forms are for inference and have no gradient. Source: PyTorch nn.Conv2d.
extern const OpDef kConv2d;
/// (dy [N,K,Ho,Wo], w) -> dx of the shape in Conv2dGradAttrs [N,C,H,W].
extern const OpDef kConv2dInputGrad;
/// (x, dy) -> dw of the shape in Conv2dGradAttrs [K,C/groups,R,S].
extern const OpDef kConv2dWeightGrad;

/// `bias` may be none; attrs.bias follows from it. Fusions are written by passes, with Graph::add.
Value conv2d(Value x, Value w, Value bias, Conv2dAttrs attrs, std::string name = {});

}  // namespace resnet
