#pragma once
// torchvision's ResNets (He et al. 2015, arXiv:1512.03385) and their kin with grouped convolutions (ResNeXt, Xie et al.
// 2016, arXiv:1611.05431) and with wide ones (Zagoruyko and Komodakis 2016, arXiv:1605.07146), with torchvision's
// parameter names and initialisation.

#include <array>

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

struct Architecture {
  Block block = Block::basic;
  std::array<int64_t, 4> depths{2, 2, 2, 2};  ///< blocks in each stage
  BottleneckOptions bottleneck = {};
  int64_t num_classes = 1000;
};

/// Two 3x3 convolutions (Fig. 5, left). x [N,C,H,W] -> [N, width, ceil(H/stride), ceil(W/stride)].
Value basic_block(Scope s, Value x, int64_t width, int64_t stride);

/// 1x1 reduce, 3x3, 1x1 expand (Fig. 5, right). x [N,C,H,W] -> [N, 4 * width, ceil(H/stride), ceil(W/stride)]; between
/// the 1x1 convolutions there are width * width_per_group / 64 * groups channels.
Value bottleneck(Scope s, Value x, int64_t width, int64_t stride, const BottleneckOptions& options = {});

/// x [N,3,H,W] -> logits [N, num_classes].
Value resnet(Scope s, Value x, const Architecture& architecture);

}  // namespace resnet::torchvision
