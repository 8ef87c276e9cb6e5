#include "ops/linear.h"

#include "base/tensor.h"
#include "ops/channel_sum.h"
#include "ops/matrix.h"
#include "ops/shape_rule.h"

namespace resnet {
namespace {

std::vector<TensorType> linear_shape(const InferCall& call) {
  const ShapeRule rule("linear", call);
  const bool bias = std::get<LinearAttrs>(call.attributes).bias;
  rule.inputs(size_t{2} + bias);
  rule.rank(0, "input", 2, "N,I");
  rule.floating(0, "input");
  rule.rank(1, "weight", 2, "O,I");
  const Shape& x = rule.shape(0);
  const Shape& w = rule.shape(1);
  if (x[1] != w[1]) {
    rule.fail("input {} has {} features, weight {} wants {}; check the width passed to the layer", x.str(), x[1],
              w.str(), w[1]);
  }
  const DType dtype = rule.in(0).dtype;
  rule.type(1, "weight", {dtype, w});
  if (bias) rule.type(2, "bias", {dtype, {w[0]}});
  return {{dtype, {x[0], w[0]}}};
}

std::vector<Value> linear_grad(GradContext& context) {
  std::vector<Value> gradients(context.node.inputs.size());
  if (context.needs(0)) gradients[0] = context.add(kLinearInputGrad, {context.dy(), context.input(1)});
  if (context.needs(1)) gradients[1] = context.add(kLinearWeightGrad, {context.input(0), context.dy()});
  if (gradients.size() == 3 && context.needs(2)) gradients[2] = context.add(kChannelSum, {context.dy()});
  return gradients;
}

void linear_ref(const RefCall& call) {
  const int64_t N = call.in[0].shape()[0];
  const int64_t I = call.in[0].shape()[1];
  const int64_t O = call.in[1].shape()[0];
  with_float(call.in[0].type->dtype, [&](auto tag) {
    using T = decltype(tag);
    const T* bias = call.in.size() == 3 ? call.in[2].as<T>() : nullptr;
    const std::vector<double> x(call.in[0].as<T>(), call.in[0].as<T>() + N * I);
    const std::vector<double> w = transposed(call.in[1].as<T>(), O, I);
    std::vector<double> y(static_cast<size_t>(N * O));
    add_product(x.data(), w.data(), y.data(), N, I, O);
    for (int64_t i = 0; i < N * O; ++i) {
      const double b = bias ? static_cast<double>(bias[i % O]) : 0.0;
      call.out[0].as<T>()[i] = static_cast<T>(y[static_cast<size_t>(i)] + b);
    }
  });
}

Cost linear_cost(const Attributes& attributes, std::span<const TensorType> in, std::span<const TensorType> out) {
  const double per_output = 2.0 * static_cast<double>(in[0].shape[1]) + int{std::get<LinearAttrs>(attributes).bias};
  return elementwise_cost(in, out, per_output);
}

std::vector<TensorType> input_grad_shape(const InferCall& call) {
  const ShapeRule rule("linear_input_grad", call);
  rule.inputs(2);
  rule.rank(0, "dy", 2, "N,O");
  rule.floating(0, "dy");
  rule.rank(1, "weight", 2, "O,I");
  const DType dtype = rule.in(0).dtype;
  rule.type(1, "weight", {dtype, {rule.shape(0)[1], rule.shape(1)[1]}});
  return {{dtype, {rule.shape(0)[0], rule.shape(1)[1]}}};
}

void input_grad_ref(const RefCall& call) {
  const int64_t N = call.in[0].shape()[0];
  const int64_t O = call.in[1].shape()[0];
  const int64_t I = call.in[1].shape()[1];
  with_float(call.in[0].type->dtype, [&](auto tag) {
    using T = decltype(tag);
    const std::vector<double> dy(call.in[0].as<T>(), call.in[0].as<T>() + N * O);
    const std::vector<double> w(call.in[1].as<T>(), call.in[1].as<T>() + O * I);
    std::vector<double> dx(static_cast<size_t>(N * I));
    add_product(dy.data(), w.data(), dx.data(), N, O, I);
    for (int64_t i = 0; i < N * I; ++i) call.out[0].as<T>()[i] = static_cast<T>(dx[static_cast<size_t>(i)]);
  });
}

std::vector<TensorType> weight_grad_shape(const InferCall& call) {
  const ShapeRule rule("linear_weight_grad", call);
  rule.inputs(2);
  rule.rank(0, "input", 2, "N,I");
  rule.floating(0, "input");
  rule.rank(1, "dy", 2, "N,O");
  const DType dtype = rule.in(0).dtype;
  rule.type(1, "dy", {dtype, {rule.shape(0)[0], rule.shape(1)[1]}});
  return {{dtype, {rule.shape(1)[1], rule.shape(0)[1]}}};
}

void weight_grad_ref(const RefCall& call) {
  const int64_t N = call.in[0].shape()[0];
  const int64_t I = call.in[0].shape()[1];
  const int64_t O = call.in[1].shape()[1];
  with_float(call.in[0].type->dtype, [&](auto tag) {
    using T = decltype(tag);
    const std::vector<double> x(call.in[0].as<T>(), call.in[0].as<T>() + N * I);
    const std::vector<double> dy = transposed(call.in[1].as<T>(), N, O);
    std::vector<double> dw(static_cast<size_t>(O * I));
    add_product(dy.data(), x.data(), dw.data(), O, N, I);
    for (int64_t i = 0; i < O * I; ++i) call.out[0].as<T>()[i] = static_cast<T>(dw[static_cast<size_t>(i)]);
  });
}

// Both gradients multiply-add each element of dy with each feature once.
Cost input_grad_cost(const Attributes&, std::span<const TensorType> in, std::span<const TensorType> out) {
  return elementwise_cost(in, out, 2.0 * static_cast<double>(in[0].shape[1]));
}

Cost weight_grad_cost(const Attributes&, std::span<const TensorType> in, std::span<const TensorType> out) {
  return elementwise_cost(in, out, 2.0 * static_cast<double>(in[0].shape[0]));
}

}  // namespace

const OpDef kLinear = {
    .name = "linear", .infer = linear_shape, .grad = linear_grad, .ref = linear_ref, .cost = linear_cost};

const OpDef kLinearInputGrad = {.name = "linear_input_grad",
                                .infer = input_grad_shape,
                                .grad = no_gradient,
                                .ref = input_grad_ref,
                                .cost = input_grad_cost};

const OpDef kLinearWeightGrad = {.name = "linear_weight_grad",
                                 .infer = weight_grad_shape,
                                 .grad = no_gradient,
                                 .ref = weight_grad_ref,
                                 .cost = weight_grad_cost};

Value linear(Value x, Value w, Value bias, std::string name) {
  std::vector<Value> inputs{x, w};
  if (bias) inputs.push_back(bias);
  return x.graph->add(kLinear, std::move(inputs), LinearAttrs{static_cast<bool>(bias)}, std::move(name));
}

}  // namespace resnet
