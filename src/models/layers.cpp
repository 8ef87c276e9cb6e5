#include "models/layers.h"

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

Value linear(Scope s, Value x, int64_t outputs, LinearOptions options) {
  const Shape shape{outputs, x.shape()[1]};
  const Value weight = s.parameter("weight", shape, initializer(options.init, shape));
  const Value bias = options.bias ? s.parameter("bias", {outputs}, uniform_fan_in(shape)) : Value{};
  return linear(x, weight, bias, s.path());
}

}  // namespace resnet
