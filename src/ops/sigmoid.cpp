#include "ops/sigmoid.h"

#include <cmath>

#include "base/tensor.h"
#include "ops/shape_rule.h"

namespace resnet {
namespace {

std::vector<TensorType> sigmoid_shape(const InferCall& call) {
  const ShapeRule rule("sigmoid", call);
  rule.inputs(1);
  rule.floating(0, "input");
  return {rule.in(0)};
}

std::vector<Value> sigmoid_grad(GradContext& context) {
  return {context.add(kSigmoidGrad, {context.dy(), context.output(0)})};
}

void sigmoid_ref(const RefCall& call) {
  with_float(call.in[0].type->dtype, [&](auto tag) {
    using T = decltype(tag);
    const T* x = call.in[0].as<T>();
    T* y = call.out[0].as<T>();
    // exp(-x) may overflow to infinity, and 1 / infinity is the 0 that is wanted.
    for (int64_t i = 0; i < call.in[0].shape().elements(); ++i)
      y[i] = static_cast<T>(1 / (1 + std::exp(-static_cast<double>(x[i]))));
  });
}

std::vector<TensorType> grad_shape(const InferCall& call) {
  const ShapeRule rule("sigmoid_grad", call);
  rule.inputs(2);
  rule.floating(0, "dy");
  rule.type(1, "y", rule.in(0));
  return {rule.in(0)};
}

void grad_ref(const RefCall& call) {
  with_float(call.in[0].type->dtype, [&](auto tag) {
    using T = decltype(tag);
    const T* dy = call.in[0].as<T>();
    const T* y = call.in[1].as<T>();
    T* dx = call.out[0].as<T>();
    for (int64_t i = 0; i < call.in[0].shape().elements(); ++i) dx[i] = dy[i] * (y[i] * (1 - y[i]));
  });
}

Cost sigmoid_cost(const Attributes&, std::span<const TensorType> in, std::span<const TensorType> out) {
  return elementwise_cost(in, out, 3);
}

constexpr InPlace kOverInput[] = {{0, 0}};
constexpr InPlace kOverEither[] = {{0, 0}, {0, 1}};

}  // namespace

const OpDef kSigmoid = {.name = "sigmoid",
                        .infer = sigmoid_shape,
                        .grad = sigmoid_grad,
                        .ref = sigmoid_ref,
                        .cost = sigmoid_cost,
                        .in_place = kOverInput};

const OpDef kSigmoidGrad = {.name = "sigmoid_grad",
                            .infer = grad_shape,
                            .grad = no_gradient,
                            .ref = grad_ref,
                            .cost = sigmoid_cost,
                            .in_place = kOverEither};

Value sigmoid(Value x, std::string name) { return x.graph->add(kSigmoid, {x}, NoAttrs{}, std::move(name)); }

}  // namespace resnet
