#pragma once
// torchvision's ResNets (He et al. 2015, arXiv:1512.03385, with the stride of bottlenecks on the 3x3
// convolution: "v1.5"), with its parameter names and initialisation.

#include <array>

#include "models/layers.h"

namespace resnet::torchvision {

enum class Block { basic, bottleneck };

struct Architecture {
  Block block = Block::basic;
  std::array<int64_t, 4> depths{2, 2, 2, 2};  ///< blocks in each stage
  int64_t num_classes = 1000;
};

/// Two 3x3 convolutions (Fig. 5, left). x [N,C,H,W] -> [N, width, ceil(H/stride), ceil(W/stride)].
Value basic_block(Scope s, Value x, int64_t width, int64_t stride);

/// 1x1 reduce, 3x3, 1x1 expand by 4 (Fig. 5, right). x [N,C,H,W] -> [N, 4 * width, ceil(H/stride), ceil(W/stride)].
Value bottleneck(Scope s, Value x, int64_t width, int64_t stride);

/// x [N,3,H,W] -> logits [N, num_classes].
Value resnet(Scope s, Value x, const Architecture& architecture);

}  // namespace resnet::torchvision
