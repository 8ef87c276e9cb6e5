#pragma once
// The lecture's network (Dive into Deep Learning, "ResNet"), piece by piece. It differs from
// torchvision's ResNet-18: all convolutions have a bias, and the 1x1 shortcut has no batch norm.

#include "models/layers.h"

namespace resnet::lecture {

struct ResidualOptions {
  bool use_1x1conv = false;
  int64_t strides = 1;
};

/// relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut), the shortcut being x or conv3(x), 1x1.
/// x [N,C,H,W] -> [N, channels, ceil(H/strides), ceil(W/strides)].
/// Throws UserError when the shortcut's shape does not fit the branch (no 1x1 where one is needed).
Value residual(Scope s, Value x, int64_t channels, ResidualOptions options = {});

struct StemOptions {
  int64_t channels = 64;
  int64_t padding = 3;  ///< of the 7x7 convolution; the lesson's listing leaves it out (0), He et al. use 3
};

/// b1: conv 7x7 stride 2 -> batch norm -> relu -> max pool 3x3 stride 2 padding 1.
Value b1(Scope s, Value x, StemOptions options = {});

/// `num_residuals` blocks; the first halves height and width, unless `first_block`.
Value resnet_block(Scope s, Value x, int64_t channels, int64_t num_residuals, bool first_block = false);

struct NetOptions {
  int64_t num_classes = 10;
  int64_t stem_padding = 3;
};

/// b1, four stages of two residuals (64, 128, 256, 512 channels), global average pool, linear.
/// x [N,C,H,W] -> logits [N, num_classes]. Parameter names are the course's PyTorch code's: `0.0.weight`,
/// `2.0.conv3.bias`, `7.weight`. With initialisation as the course has it: Xavier for every weight.
Value resnet18(Scope s, Value x, NetOptions options = {});

}  // namespace resnet::lecture
