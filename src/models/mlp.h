#pragma once
// Residual blocks over linear layers, and the plain twin: the same idea without a convolution.

#include "models/layers.h"

namespace resnet::mlp {

struct Architecture {
  int64_t depth = 20;    ///< 2n + 2 linear layers: one to `width`, n blocks of two, one to the classes
  bool shortcut = true;  ///< false: a plain net
  int64_t width = 128;
  int64_t num_classes = 10;
  bool batch_norm = true;           ///< false: none, and every linear layer has a bias instead
  bool zero_init_residual = false;  ///< each block's last batch norm starts with gamma 0: as its shortcut alone
  WeightInit init = WeightInit::kaiming;
};

/// relu(bn2(linear2(relu(bn1(linear1(x))))) + x). x [N,width] -> the same shape.
Value block(Scope s, Value x, const Architecture& a);

/// Parameters `linear1`, `bn1`, then of block i `blocks.i.linear1`, `.bn1`, `.linear2`, `.bn2`, then `linear`.
/// x [N,C,H,W] -> logits [N, num_classes]; its C*H*W are the first layer's inputs.
/// Throws UserError when the depth is not 2n + 2 with n >= 1.
Value resnet(Scope s, Value x, const Architecture& a);

}  // namespace resnet::mlp
