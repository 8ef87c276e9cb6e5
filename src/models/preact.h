#pragma once
// Pre-activation residual networks: batch norm and relu come before each convolution, so that the shortcut runs through
// the net with nothing on it but sums (He et al. 2016, arXiv:1603.05027, Fig. 1b), and one more follows the last block.

#include <vector>

#include "models/layers.h"

namespace resnet::preact {

/// Where a bottleneck that halves its input does so: on the 3x3 convolution (timm), or on the first 1x1 (He's code,
/// github.com/KaimingHe/resnet-1k-layers).
enum class Stride { conv2, conv1 };

/// Of one bottleneck.
struct BottleneckOptions {
  int64_t stride = 1;
  Stride stride_on = Stride::conv2;
  bool project = false;  ///< the shortcut is a 1x1 convolution of relu(norm1(x)), not x: in each stage's first block
  double drop_path = 0;  ///< stochastic depth's rate, of this block
};

/// y = conv3(relu(norm3(conv2(relu(norm2(conv1(relu(norm1(x)))))))) + shortcut, 1x1, 3x3 and 1x1.
/// x [N,C,H,W] -> [N, channels, ceil(H/stride), ceil(W/stride)], channels / 4 between the 1x1 convolutions.
Value bottleneck(Scope s, Value x, int64_t channels, const BottleneckOptions& options);

struct Architecture {
  std::vector<int64_t> blocks{3, 4, 6, 3};  ///< of each stage; a stage has twice the channels of the one before
  int64_t num_classes = 1000;
  double drop_path = 0;  ///< stochastic depth's rate of the last block; the others follow the linear decay rule
};

/// timm's resnetv2_50 and its like, and timm's names: stem of 7x7 and max pool, stages of 256, 512, ... channels, a
/// classifier that is a 1x1 convolution. x [N,3,H,W] -> logits [N, num_classes].
Value resnetv2(Scope s, Value x, const Architecture& a);

/// He's nets for CIFAR (Sec. 4 and appendix: 164 and 1001 layers, 9n + 2 with n blocks in each of three stages of 64,
/// 128 and 256 channels after a 3x3 stem of 16), with the strides of He's code and the names of timm's resnetv2.
/// x [N,C,H,W] -> logits [N, num_classes].
Value resnet_cifar(Scope s, Value x, const Architecture& a);

struct WideArchitecture {
  std::vector<int64_t> blocks{4, 4, 4};  ///< n of each stage: 6n + 4 layers
  int64_t width = 10;                    ///< times 16, 32 and 64 channels
  int64_t num_classes = 10;
  double drop_path = 0;  ///< as above
};

/// conv2(relu(bn2(conv1(relu(bn1(x)))))) + shortcut, both 3x3; the shortcut is x, or a 1x1 convolution of relu(bn1(x))
/// where the channels change. x [N,C,H,W] -> [N, channels, ceil(H/stride), ceil(W/stride)].
Value wide_block(Scope s, Value x, int64_t channels, int64_t stride, double drop_rate);

/// Wide residual networks (Zagoruyko and Komodakis 2016, arXiv:1605.07146, Table 1), without dropout; parameter names
/// are those of xternalz/WideResNet-pytorch. x [N,C,H,W] -> logits [N, num_classes].
Value wide_resnet_cifar(Scope s, Value x, const WideArchitecture& a);

}  // namespace resnet::preact
