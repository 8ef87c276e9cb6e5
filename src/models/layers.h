#pragma once
// Layers with parameters, as plain functions of a scope and a value.

#include "models/scope.h"
#include "ops/add.h"
#include "ops/batch_norm.h"
#include "ops/channel_conv.h"
#include "ops/conv2d.h"
#include "ops/global_avg_pool.h"
#include "ops/linear.h"
#include "ops/max_pool.h"
#include "ops/relu.h"
#include "ops/reshape.h"
#include "ops/scale.h"
#include "ops/sigmoid.h"

namespace resnet {

/// Xavier (Glorot and Bengio 2010): U(-b, b), b = sqrt(6 / (fan_in + fan_out)); `weight` is [O, I, ...].
Initializer xavier_uniform(const Shape& weight);
/// Kaiming (He et al. 2015, arXiv:1502.01852): N(0, 2 / fan_out), torchvision's choice for its ResNets; gradients keep
/// their size through the layers.
Initializer kaiming_normal_fan_out(const Shape& weight);
/// The same with N(0, 2 / fan_in), PyTorch's default mode: values keep their size.
Initializer kaiming_normal_fan_in(const Shape& weight);
/// PyTorch's default: U(-b, b), b = 1 / sqrt(fan_in), for weights and the biases beside them.
Initializer uniform_fan_in(const Shape& weight);
Initializer constant(double value);

/// How weights start. Kaiming is fan-out for convolutions, and fan-in for linear layers: a classifier of few outputs
/// would else start with large logits.
enum class WeightInit { xavier, kaiming, pytorch };

struct ConvOptions {
  int64_t kernel = 3;
  int64_t stride = 1;
  int64_t pad = 0;
  int64_t dilation = 1;
  int64_t groups = 1;
  bool bias = false;
  WeightInit init = WeightInit::kaiming;
};

/// x [N,C,H,W] -> [N,channels,Ho,Wo]; parameters `weight` [channels, C/groups, kernel, kernel] and, if
/// asked for, `bias` (uniform fan-in, PyTorch's default, whatever the weight's initialisation).
Value conv(Scope s, Value x, int64_t channels, const ConvOptions& options);

struct BatchNormOptions {
  bool zero_gamma = false;  ///< `weight` starts 0, not 1: a residual block that ends so starts as the identity
};

/// PyTorch's BatchNorm1d and 2d, x [N,C,...]: eps 1e-5, momentum 0.1; parameters `weight`, `bias`, buffers
/// `running_mean`, `running_var`. In training the batch's statistics normalise and the running ones are updated after
/// the step.
Value batch_norm(Scope s, Value x, BatchNormOptions options = {});

struct LinearOptions {
  bool bias = true;
  WeightInit init = WeightInit::pytorch;
};

/// x [N,I] -> [N,outputs]; parameters `weight` [outputs, I] and, if asked for, `bias` (as a convolution's).
Value linear(Scope s, Value x, int64_t outputs, LinearOptions options = {});

/// Squeeze-and-excitation (Hu et al. 2017, arXiv:1709.01507): x * sigmoid(fc2(relu(fc1(mean of each map of x)))), both
/// 1x1 convolutions with a bias, between them C / 16 channels rounded to a multiple of 8 (timm's SEModule and names).
Value squeeze_excite(Scope s, Value x);

/// Efficient channel attention (Wang et al. 2019, arXiv:1910.03151): x * sigmoid(conv(mean of each map of x)), the
/// convolution along the channels, without bias. Its kernel is |log2(C) + 1| / 2 rounded down, made odd by adding one,
/// and 3 at least; parameter `conv.weight` [1,1,k] (timm's EcaModule).
Value efficient_channel_attention(Scope s, Value x);

/// Stochastic depth (Huang et al. 2016, arXiv:1603.09382): in training each image's branch is dropped with probability
/// `rate`, and what is kept is divided by 1 - rate, so that nothing changes in the mean (timm's DropPath). The factors
/// come from outside, by the graph's input of the scope's path. In inference, and with rate 0, `branch` itself.
Value drop_path(Scope s, Value branch, double rate);

/// The linear decay rule: block `block` of `blocks` has rate last * block / (blocks - 1). One block alone: 0.
double drop_path_rate(double last, int64_t block, int64_t blocks);

}  // namespace resnet
