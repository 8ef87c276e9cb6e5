#pragma once
// torchvision's ResNets (He et al. 2015, arXiv:1512.03385) and their kin with grouped convolutions (ResNeXt, Xie et al.
// 2016, arXiv:1611.05431) and with wide ones (Zagoruyko and Komodakis 2016, arXiv:1605.07146), with torchvision's
// parameter names and initialisation.

#include <vector>

#include "models/layers.h"

namespace resnet::torchvision {

enum class Block { basic, bottleneck };

/// Where a bottleneck that halves its input does so: on the 3x3 convolution (torchvision, "v1.5"), or on the first 1x1
/// (the paper, "v1"), which leaves three of four pixels unread.
enum class Stride { conv2, conv1 };

struct BottleneckOptions {
  int64_t groups = 1;            ///< of the 3x3 convolution: ResNeXt's cardinality
  int64_t width_per_group = 64;  ///< channels of a group in the first stage
  Stride stride_on = Stride::conv2;
};

/// What both kinds of block can be asked for.
struct ResidualOptions {
  bool zero_init = false;  ///< the last batch norm starts with gamma 0: the block starts as its shortcut alone
  double drop_path = 0;    ///< stochastic depth's rate, of this block
};

struct Architecture {
  Block block = Block::basic;
  std::vector<int64_t> blocks{2, 2, 2, 2};  ///< of each stage; a stage has twice the channels of the one before
  BottleneckOptions bottleneck = {};
  int64_t num_classes = 1000;
  bool zero_init_residual = false;
  double drop_path = 0;  ///< stochastic depth's rate of the last block; the others follow the linear decay rule
};

/// Two 3x3 convolutions (Fig. 5, left). x [N,C,H,W] -> [N, width, ceil(H/stride), ceil(W/stride)].
Value basic_block(Scope s, Value x, int64_t width, int64_t stride, const ResidualOptions& residual = {});

/// 1x1 reduce, 3x3, 1x1 expand (Fig. 5, right). x [N,C,H,W] -> [N, 4 * width, ceil(H/stride), ceil(W/stride)]; between
/// the 1x1 convolutions there are width * width_per_group / 64 * groups channels.
Value bottleneck(Scope s, Value x, int64_t width, int64_t stride, const BottleneckOptions& options = {},
                 const ResidualOptions& residual = {});

/// x [N,3,H,W] -> logits [N, num_classes].
Value resnet(Scope s, Value x, const Architecture& a);

}  // namespace resnet::torchvision
