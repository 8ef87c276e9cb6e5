#pragma once
// Residual networks with the tweaks that timm has beside torchvision's, with timm's parameter names: the stem of three
// 3x3 convolutions and the averaging shortcut (ResNet-C, -D and -S; He et al. 2018, arXiv:1812.01187, Fig. 2),
// channel attention (SE, ECA) and blurred downsampling (Zhang 2019, arXiv:1904.11486).

#include <vector>

#include "models/layers.h"

namespace resnet::timm {

enum class Block { basic, bottleneck };
enum class Attention { none, squeeze_excite, efficient };

/// What a block may have besides its convolutions.
struct BlockOptions {
  bool average_shortcut = false;  ///< the shortcut averages 2x2 pixels before its 1x1 convolution, and reads them all
  bool blur = false;              ///< what would be strided runs at full size and is then blurred and subsampled
  Attention attention = Attention::none;  ///< at the branch's end
  bool zero_init = false;  ///< the last batch norm starts with gamma 0: the block starts as its shortcut alone
  double drop_path = 0;    ///< stochastic depth's rate, of this block
};

struct Architecture {
  Block block = Block::bottleneck;
  std::vector<int64_t> blocks{3, 4, 6, 3};  ///< of each stage; a stage has twice the channels of the one before
  int64_t deep_stem = 0;  ///< channels of the first two of three 3x3 convolutions, the third's double; 0: one of 7x7
  BlockOptions options = {};  ///< drop_path: of the last block; the others follow the linear decay rule
  int64_t num_classes = 1000;
};

/// Two 3x3 convolutions. x [N,C,H,W] -> [N, width, ceil(H/stride), ceil(W/stride)].
Value basic_block(Scope s, Value x, int64_t width, int64_t stride, const BlockOptions& options);

/// 1x1 reduce, 3x3, 1x1 expand. x [N,C,H,W] -> [N, 4 * width, ceil(H/stride), ceil(W/stride)].
Value bottleneck(Scope s, Value x, int64_t width, int64_t stride, const BlockOptions& options);

/// x [N,3,H,W] -> logits [N, num_classes].
Value resnet(Scope s, Value x, const Architecture& a);

}  // namespace resnet::timm
