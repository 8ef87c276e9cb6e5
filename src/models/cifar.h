#pragma once
// The narrow and deep networks for small images (He et al. 2015, arXiv:1512.03385, Sec. 4.2) and their plain twins.
// Parameter names are those of akamaster/pytorch_resnet_cifar10.

#include <vector>

#include "models/layers.h"

namespace resnet::cifar {

/// What a block adds to its branch.
enum class Shortcut {
  pad,      ///< option A: the input, every second pixel of it and zeros for the new channels where the shape changes
  project,  ///< option B: a strided 1x1 convolution and batch norm where the shape changes, the input elsewhere
  none,     ///< a plain net: nothing
};

struct Architecture {
  int64_t depth = 20;                ///< 6n + 2: a stem, three stages of n blocks of two convolutions, a linear layer
  std::vector<int64_t> blocks = {};  ///< of each stage, if not n of each of three; then `depth` says nothing
  Shortcut shortcut = Shortcut::pad;
  int64_t num_classes = 10;
  bool batch_norm = true;           ///< false: none, and every convolution has a bias instead
  bool zero_init_residual = false;  ///< each block's last batch norm starts with gamma 0: as its shortcut alone
  WeightInit init = WeightInit::kaiming;
  double drop_path = 0;  ///< stochastic depth's rate of the last block; the others follow the linear decay rule
};

/// relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x)), both convolutions 3x3.
/// x [N,C,H,W] -> [N, width, ceil(H/stride), ceil(W/stride)].
/// `drop_rate` is stochastic depth's, of this block.
Value basic_block(Scope s, Value x, int64_t width, int64_t stride, const Architecture& a, double drop_rate = 0);

/// Stem of 16 channels, stages of 16, 32 and 64, global average pool, linear. x [N,C,H,W] -> logits [N, num_classes].
/// Throws UserError when the depth is not 6n + 2 with n >= 1.
Value resnet(Scope s, Value x, const Architecture& a);

}  // namespace resnet::cifar
