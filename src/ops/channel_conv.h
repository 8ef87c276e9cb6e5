#pragma once

#include <string>

#include "graph/graph.h"

namespace resnet {

/// A one-dimensional convolution along the channels of [N,C,1,1], zeros beyond both ends, as efficient channel
/// attention has it (Wang et al. 2019, arXiv:1910.03151). x [N,C,1,1], w [1,1,k], k odd -> like x:
///   y[n][c] = sum_j w[j] * x[n][c + j - (k - 1) / 2]
/// With attrs.flip it is w[k - 1 - j], which is the gradient with respect to x. Throws UserError: x with more than one
/// pixel, k even, w of another shape. Source: PyTorch nn.Conv1d over the transposed tensor.
extern const OpDef kChannelConv;
/// (x, dy) -> dw [1,1,k] of the shape in ShapeAttrs.
extern const OpDef kChannelConvWeightGrad;

Value channel_conv(Value x, Value w, std::string name = {});

}  // namespace resnet
