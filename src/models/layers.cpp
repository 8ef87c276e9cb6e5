#include "models/layers.h"

#include <algorithm>
#include <cmath>

namespace resnet {
namespace {

struct Fans {
  double in, out;
};

Fans fans_of(const Shape& weight) {
  double window = 1;
  for (int axis = 2; axis < weight.rank(); ++axis) window *= static_cast<double>(weight[axis]);
  return {static_cast<double>(weight[1]) * window, static_cast<double>(weight[0]) * window};
}

Initializer initializer(WeightInit init, const Shape& weight) {
  switch (init) {
    case WeightInit::xavier: return xavier_uniform(weight);
    case WeightInit::kaiming:
      return weight.rank() == 2 ? kaiming_normal_fan_in(weight) : kaiming_normal_fan_out(weight);
    case WeightInit::pytorch: return uniform_fan_in(weight);
  }
  throw InternalError("unknown initialisation");
}

}  // namespace

Initializer xavier_uniform(const Shape& weight) {
  const Fans fans = fans_of(weight);
  return {Initializer::Kind::uniform, std::sqrt(6.0 / (fans.in + fans.out))};
}

Initializer kaiming_normal_fan_out(const Shape& weight) {
  return {Initializer::Kind::normal, std::sqrt(2.0 / fans_of(weight).out)};
}

Initializer kaiming_normal_fan_in(const Shape& weight) {
  return {Initializer::Kind::normal, std::sqrt(2.0 / fans_of(weight).in)};
}

Initializer uniform_fan_in(const Shape& weight) {
  return {Initializer::Kind::uniform, 1.0 / std::sqrt(fans_of(weight).in)};
}

Initializer constant(double value) { return {Initializer::Kind::constant, value}; }

Value conv(Scope s, Value x, int64_t channels, const ConvOptions& o) {
  const Shape shape{channels, x.shape()[1] / o.groups, o.kernel, o.kernel};
  const Value weight = s.parameter("weight", shape, initializer(o.init, shape));
  const Value bias = o.bias ? s.parameter("bias", {channels}, uniform_fan_in(shape)) : Value{};
  return conv2d(
      x, weight, bias,
      {.stride = {o.stride, o.stride}, .pad = {o.pad, o.pad}, .dilation = {o.dilation, o.dilation}, .groups = o.groups},
      s.path());
}

Value batch_norm(Scope s, Value x, BatchNormOptions options) {
  constexpr double kEpsilon = 1e-5;
  const Shape channels{x.shape()[1]};
  const Value gamma = s.parameter("weight", channels, constant(options.zero_gamma ? 0 : 1));
  const Value beta = s.parameter("bias", channels, constant(0));
  const Value running_mean = s.buffer("running_mean", channels, 0);
  const Value running_var = s.buffer("running_var", channels, 1);
  if (!s.training()) return batch_norm_inference(x, gamma, beta, running_mean, running_var, kEpsilon, s.path());
  const BatchNormResult result = batch_norm_training(x, gamma, beta, kEpsilon, s.path());
  const double count = static_cast<double>(x.shape().elements() / x.shape()[1]);
  s.builder().statistics.push_back({running_mean, result.mean, 0.1, 1.0});
  s.builder().statistics.push_back({running_var, result.var, 0.1, count / (count - 1)});
  return result.y;
}

Value squeeze_excite(Scope s, Value x) {
  const int64_t channels = x.shape()[1];
  const int64_t inner = std::max<int64_t>(8, (channels / 16 + 4) / 8 * 8);
  Value gate = relu(conv(s / "fc1", global_avg_pool(x), inner, {.kernel = 1, .bias = true}));
  gate = conv(s / "fc2", gate, channels, {.kernel = 1, .bias = true});
  return scale(x, sigmoid(gate), s.path());
}

Value efficient_channel_attention(Scope s, Value x) {
  const double channels = static_cast<double>(x.shape()[1]);
  const auto half = static_cast<int64_t>(std::abs(std::log2(channels) + 1) / 2);
  const Shape shape{1, 1, std::max<int64_t>(3, half + 1 - half % 2)};
  const Value weight = (s / "conv").parameter("weight", shape, uniform_fan_in(shape));
  return scale(x, sigmoid(channel_conv(global_avg_pool(x), weight, (s / "conv").path())), s.path());
}

Value drop_path(Scope s, Value branch, double rate) {
  if (rate == 0 || !s.training()) return branch;
  s.builder().drop_paths.push_back({s.path(), rate});
  const Value factors = s.graph().input(s.path(), {branch.type().dtype, Shape{branch.shape()[0]}});
  return scale(branch, factors, s.path());
}

double drop_path_rate(double last, int64_t block, int64_t blocks) {
  return blocks > 1 ? last * static_cast<double>(block) / static_cast<double>(blocks - 1) : 0;
}

Value linear(Scope s, Value x, int64_t outputs, LinearOptions options) {
  const Shape shape{outputs, x.shape()[1]};
  const Value weight = s.parameter("weight", shape, initializer(options.init, shape));
  const Value bias = options.bias ? s.parameter("bias", {outputs}, uniform_fan_in(shape)) : Value{};
  return linear(x, weight, bias, s.path());
}

}  // namespace resnet
