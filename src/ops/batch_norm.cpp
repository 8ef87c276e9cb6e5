#include "ops/batch_norm.h"

#include <array>
#include <cmath>

#include "base/tensor.h"
#include "ops/shape_rule.h"

namespace resnet {
namespace {

// Checks x [N,C,...] and the per-channel inputs from `first` on; returns the type of a per-channel tensor.
TensorType channel_type(const ShapeRule& rule, size_t x, size_t first, std::span<const char* const> names) {
  rule.floating(x, "input");
  const Shape& shape = rule.shape(x);
  if (shape.rank() < 2) rule.fail("input has shape {}, expected [N,C,...]", shape.str());
  const TensorType channels{rule.in(x).dtype, {shape[1]}};
  for (size_t i = 0; i < names.size(); ++i) rule.type(first + i, names[i], channels);
  return channels;
}

// Runs body(channel, index) over the tensor, channel by channel.
template <class Body>
void each_of_channel(const Shape& shape, int64_t c, Body&& body) {
  const int64_t P = pixels(shape);
  for (int64_t n = 0; n < shape[0]; ++n) {
    const int64_t start = (n * shape[1] + c) * P;
    for (int64_t i = start; i < start + P; ++i) body(i);
  }
}

template <class T>
struct Apply {
  const T* x;
  const T* gamma;
  const T* beta;
  const T* residual;
  T* y;
};

template <class T>
void apply(const BatchNormAttrs& a, const Shape& shape, const Apply<T>& t, int64_t c, double mean, double var) {
  const double inverse = 1 / std::sqrt(var + a.epsilon);
  const auto gamma = static_cast<double>(t.gamma[c]);
  const auto beta = static_cast<double>(t.beta[c]);
  each_of_channel(shape, c, [&](int64_t i) {
    double y = (static_cast<double>(t.x[i]) - mean) * inverse * gamma + beta;
    if (t.residual) y += static_cast<double>(t.residual[i]);
    t.y[i] = static_cast<T>(a.relu && y <= 0 ? 0.0 : y);
  });
}

std::vector<TensorType> training_shape(const InferCall& call) {
  const ShapeRule rule("batch_norm", call);
  const auto& a = std::get<BatchNormAttrs>(call.attributes);
  check(a.training, "batch_norm: attrs.training is false");
  rule.inputs(size_t{3} + a.residual);
  const TensorType channels = channel_type(rule, 0, 1, std::to_array<const char*>({"gamma", "beta"}));
  const TensorType& x = rule.in(0);
  if (a.residual) rule.type(3, "residual", x);
  if (x.shape[0] * pixels(x.shape) < 2) {
    rule.fail("input {} has one value a channel, which has no variance to train with; use a larger batch or image",
              x.shape.str());
  }
  return {x, channels, channels};
}

std::vector<TensorType> inference_shape(const InferCall& call) {
  const ShapeRule rule("batch_norm_inference", call);
  const auto& a = std::get<BatchNormAttrs>(call.attributes);
  check(!a.training, "batch_norm_inference: attrs.training is true");
  rule.inputs(size_t{5} + a.residual);
  channel_type(rule, 0, 1, std::to_array<const char*>({"gamma", "beta", "mean", "var"}));
  if (a.residual) rule.type(5, "residual", rule.in(0));
  return {rule.in(0)};
}

std::vector<TensorType> grad_shape(const InferCall& call) {
  const ShapeRule rule("batch_norm_grad", call);
  const auto& a = std::get<BatchNormAttrs>(call.attributes);
  rule.inputs(size_t{5} + a.relu);
  const TensorType channels = channel_type(rule, 1, 2, std::to_array<const char*>({"gamma", "mean", "var"}));
  const TensorType& x = rule.in(1);
  rule.type(0, "dy", x);
  if (a.relu) rule.type(5, "y", x);
  std::vector<TensorType> outputs{x, channels, channels};
  if (a.residual) outputs.push_back(x);
  return outputs;
}

std::vector<Value> gradient(GradContext& context, Value mean, Value var, size_t residual_index) {
  const auto& a = context.attributes<BatchNormAttrs>();
  std::vector<Value> inputs{context.dy(), context.input(0), context.input(1), mean, var};
  if (a.relu) inputs.push_back(context.output(0));
  const Value dx = context.add(kBatchNormGrad, std::move(inputs), a);
  std::vector<Value> gradients(context.node.inputs.size());
  auto result = [&](size_t input, int32_t output) {
    if (context.needs(static_cast<int>(input))) gradients[input] = {dx.graph, dx.node, output};
  };
  result(0, 0);
  result(1, 1);
  result(2, 2);
  if (a.residual) result(residual_index, 3);
  return gradients;
}

std::vector<Value> training_grad(GradContext& context) {
  if (context.cotangents[1] || context.cotangents[2] || !context.dy()) {
    throw InternalError(fmt::format("batch_norm '{}': no gradient through the batch's statistics", context.node.name));
  }
  return gradient(context, context.output(1), context.output(2), 3);
}

std::vector<Value> inference_grad(GradContext& context) {
  if (context.needs(3) || context.needs(4)) {
    throw InternalError(
        fmt::format("batch_norm_inference '{}': the statistics are constants and have no gradient", context.node.name));
  }
  return gradient(context, context.input(3), context.input(4), 5);
}

void training_ref(const RefCall& call) {
  const auto& a = std::get<BatchNormAttrs>(call.attributes);
  const Shape& shape = call.in[0].shape();
  const auto count = static_cast<double>(shape[0] * pixels(shape));
  with_float(call.in[0].type->dtype, [&](auto tag) {
    using T = decltype(tag);
    const Apply<T> t{call.in[0].as<T>(), call.in[1].as<T>(), call.in[2].as<T>(),
                     a.residual ? call.in[3].as<T>() : nullptr, call.out[0].as<T>()};
    for (int64_t c = 0; c < shape[1]; ++c) {
      double sum = 0;
      each_of_channel(shape, c, [&](int64_t i) { sum += static_cast<double>(t.x[i]); });
      const double mean = sum / count;
      double squares = 0;
      each_of_channel(shape, c, [&](int64_t i) {
        const double d = static_cast<double>(t.x[i]) - mean;
        squares += d * d;
      });
      const double var = squares / count;
      apply(a, shape, t, c, mean, var);
      call.out[1].as<T>()[c] = static_cast<T>(mean);
      call.out[2].as<T>()[c] = static_cast<T>(var);
    }
  });
}

void inference_ref(const RefCall& call) {
  const auto& a = std::get<BatchNormAttrs>(call.attributes);
  const Shape& shape = call.in[0].shape();
  with_float(call.in[0].type->dtype, [&](auto tag) {
    using T = decltype(tag);
    const Apply<T> t{call.in[0].as<T>(), call.in[1].as<T>(), call.in[2].as<T>(),
                     a.residual ? call.in[5].as<T>() : nullptr, call.out[0].as<T>()};
    for (int64_t c = 0; c < shape[1]; ++c) {
      apply(a, shape, t, c, static_cast<double>(call.in[3].as<T>()[c]), static_cast<double>(call.in[4].as<T>()[c]));
    }
  });
}

void grad_ref(const RefCall& call) {
  const auto& a = std::get<BatchNormAttrs>(call.attributes);
  const Shape& shape = call.in[1].shape();
  const auto count = static_cast<double>(shape[0] * pixels(shape));
  with_float(call.in[1].type->dtype, [&](auto tag) {
    using T = decltype(tag);
    const T* dy = call.in[0].as<T>();
    const T* x = call.in[1].as<T>();
    const T* y = a.relu ? call.in[5].as<T>() : nullptr;
    auto g = [&](int64_t i) { return y && !(y[i] > 0) ? 0.0 : static_cast<double>(dy[i]); };
    for (int64_t c = 0; c < shape[1]; ++c) {
      const auto gamma = static_cast<double>(call.in[2].as<T>()[c]);
      const auto mean = static_cast<double>(call.in[3].as<T>()[c]);
      const double inverse = 1 / std::sqrt(static_cast<double>(call.in[4].as<T>()[c]) + a.epsilon);
      double sum = 0;
      double sum_normalised = 0;
      each_of_channel(shape, c, [&](int64_t i) {
        sum += g(i);
        sum_normalised += g(i) * (static_cast<double>(x[i]) - mean) * inverse;
      });
      // With given statistics the terms that come from differentiating them are absent.
      const double through_mean = a.training ? sum / count : 0;
      const double through_var = a.training ? sum_normalised / count : 0;
      each_of_channel(shape, c, [&](int64_t i) {
        const double normalised = (static_cast<double>(x[i]) - mean) * inverse;
        call.out[0].as<T>()[i] = static_cast<T>(gamma * inverse * (g(i) - through_mean - normalised * through_var));
        if (a.residual) call.out[3].as<T>()[i] = static_cast<T>(g(i));
      });
      call.out[1].as<T>()[c] = static_cast<T>(sum_normalised);
      call.out[2].as<T>()[c] = static_cast<T>(sum);
    }
  });
}

// Per element: mean 1, variance 3, applying 4; a given statistic costs only the applying.
Cost training_cost(const Attributes& attributes, std::span<const TensorType> in, std::span<const TensorType> out) {
  const auto& a = std::get<BatchNormAttrs>(attributes);
  return elementwise_cost(in, out, 8 + int{a.residual} + int{a.relu});
}

Cost inference_cost(const Attributes& attributes, std::span<const TensorType> in, std::span<const TensorType> out) {
  const auto& a = std::get<BatchNormAttrs>(attributes);
  return elementwise_cost(in, out, 4 + int{a.residual} + int{a.relu});
}

Cost grad_cost(const Attributes& attributes, std::span<const TensorType> in, std::span<const TensorType> out) {
  const auto& a = std::get<BatchNormAttrs>(attributes);
  return elementwise_cost(in, out, (a.training ? 10 : 6) + int{a.relu});
}

}  // namespace

const OpDef kBatchNorm = {
    .name = "batch_norm", .infer = training_shape, .grad = training_grad, .ref = training_ref, .cost = training_cost};

const OpDef kBatchNormInference = {.name = "batch_norm_inference",
                                   .infer = inference_shape,
                                   .grad = inference_grad,
                                   .ref = inference_ref,
                                   .cost = inference_cost};

const OpDef kBatchNormGrad = {
    .name = "batch_norm_grad", .infer = grad_shape, .grad = no_gradient, .ref = grad_ref, .cost = grad_cost};

BatchNormResult batch_norm_training(Value x, Value gamma, Value beta, double epsilon, std::string name) {
  const Value y =
      x.graph->add(kBatchNorm, {x, gamma, beta}, BatchNormAttrs{.epsilon = epsilon, .training = true}, std::move(name));
  return {y, {y.graph, y.node, 1}, {y.graph, y.node, 2}};
}

Value batch_norm_inference(Value x, Value gamma, Value beta, Value mean, Value var, double epsilon, std::string name) {
  return x.graph->add(kBatchNormInference, {x, gamma, beta, mean, var},
                      BatchNormAttrs{.epsilon = epsilon, .training = false}, std::move(name));
}

}  // namespace resnet
