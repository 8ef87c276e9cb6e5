#include "ops/relu.h"

#include "base/tensor.h"
#include "ops/shape_rule.h"

namespace resnet {
namespace {

std::vector<TensorType> relu_shape(const InferCall& call) {
  const ShapeRule rule("relu", call);
  rule.inputs(1);
  rule.floating(0, "input");
  return {rule.in(0)};
}

std::vector<Value> relu_grad(GradContext& context) {
  return {context.add(kReluGrad, {context.dy(), context.output(0)})};
}

void relu_ref(const RefCall& call) {
  with_float(call.in[0].type->dtype, [&](auto tag) {
    using T = decltype(tag);
    const T* x = call.in[0].as<T>();
    T* y = call.out[0].as<T>();
    // Not `x > 0 ? x : 0`, which would hide a NaN.
    for (int64_t i = 0; i < call.in[0].shape().elements(); ++i) y[i] = x[i] <= 0 ? T{0} : x[i];
  });
}

std::vector<TensorType> relu_grad_shape(const InferCall& call) {
  const ShapeRule rule("relu_grad", call);
  rule.inputs(2);
  rule.floating(0, "dy");
  rule.type(1, "y", rule.in(0));
  return {rule.in(0)};
}

void relu_grad_ref(const RefCall& call) {
  with_float(call.in[0].type->dtype, [&](auto tag) {
    using T = decltype(tag);
    const T* dy = call.in[0].as<T>();
    const T* y = call.in[1].as<T>();
    T* dx = call.out[0].as<T>();
    for (int64_t i = 0; i < call.in[0].shape().elements(); ++i) dx[i] = y[i] > 0 ? dy[i] : T{0};
  });
}

Cost relu_cost(const Attributes&, std::span<const TensorType> in, std::span<const TensorType> out) {
  return elementwise_cost(in, out, 1);
}

constexpr InPlace kOverInput[] = {{0, 0}};
constexpr InPlace kOverEither[] = {{0, 0}, {0, 1}};

}  // namespace

const OpDef kRelu = {
    .name = "relu", .infer = relu_shape, .grad = relu_grad, .ref = relu_ref, .cost = relu_cost, .in_place = kOverInput};

const OpDef kReluGrad = {.name = "relu_grad",
                         .infer = relu_grad_shape,
                         .grad = no_gradient,
                         .ref = relu_grad_ref,
                         .cost = relu_cost,
                         .in_place = kOverEither};

Value relu(Value x, std::string name) { return x.graph->add(kRelu, {x}, NoAttrs{}, std::move(name)); }

}  // namespace resnet
