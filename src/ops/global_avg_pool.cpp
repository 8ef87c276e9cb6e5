#include "ops/global_avg_pool.h"

#include "base/tensor.h"
#include "ops/shape_rule.h"

namespace resnet {
namespace {

std::vector<TensorType> global_avg_pool_shape(const InferCall& call) {
  const ShapeRule rule("global_avg_pool", call);
  rule.inputs(1);
  rule.rank(0, "input", 4, "N,C,H,W");
  rule.floating(0, "input");
  return {{rule.in(0).dtype, {rule.shape(0)[0], rule.shape(0)[1], 1, 1}}};
}

std::vector<TensorType> grad_shape(const InferCall& call) {
  const ShapeRule rule("global_avg_pool_grad", call);
  const Shape& x = std::get<ShapeAttrs>(call.attributes).shape;
  rule.inputs(1);
  rule.floating(0, "dy");
  check(x.rank() == 4, "global_avg_pool_grad: the shape attribute is not [N,C,H,W]");
  rule.type(0, "dy", {rule.in(0).dtype, {x[0], x[1], 1, 1}});
  return {{rule.in(0).dtype, x}};
}

std::vector<Value> global_avg_pool_grad(GradContext& context) {
  return {context.add(kGlobalAvgPoolGrad, {context.dy()}, ShapeAttrs{context.input(0).shape()})};
}

void global_avg_pool_ref(const RefCall& call) {
  const int64_t P = pixels(call.in[0].shape());
  with_float(call.in[0].type->dtype, [&](auto tag) {
    using T = decltype(tag);
    const T* x = call.in[0].as<T>();
    for (int64_t plane = 0; plane < call.out[0].shape().elements(); ++plane) {
      double sum = 0;
      for (int64_t p = 0; p < P; ++p) sum += static_cast<double>(x[plane * P + p]);
      call.out[0].as<T>()[plane] = static_cast<T>(sum / static_cast<double>(P));
    }
  });
}

void grad_ref(const RefCall& call) {
  const int64_t P = pixels(call.out[0].shape());
  with_float(call.in[0].type->dtype, [&](auto tag) {
    using T = decltype(tag);
    for (int64_t plane = 0; plane < call.in[0].shape().elements(); ++plane) {
      const double share = static_cast<double>(call.in[0].as<T>()[plane]) / static_cast<double>(P);
      for (int64_t p = 0; p < P; ++p) call.out[0].as<T>()[plane * P + p] = static_cast<T>(share);
    }
  });
}

Cost global_avg_pool_cost(const Attributes&, std::span<const TensorType> in, std::span<const TensorType> out) {
  Cost cost = elementwise_cost(in, out, 0);
  cost.flops = count(in[0]) + count(out[0]);
  return cost;
}

Cost grad_cost(const Attributes&, std::span<const TensorType> in, std::span<const TensorType> out) {
  Cost cost = elementwise_cost(in, out, 0);
  cost.flops = count(in[0]);
  return cost;
}

}  // namespace

const OpDef kGlobalAvgPool = {.name = "global_avg_pool",
                              .infer = global_avg_pool_shape,
                              .grad = global_avg_pool_grad,
                              .ref = global_avg_pool_ref,
                              .cost = global_avg_pool_cost};

const OpDef kGlobalAvgPoolGrad = {
    .name = "global_avg_pool_grad", .infer = grad_shape, .grad = no_gradient, .ref = grad_ref, .cost = grad_cost};

Value global_avg_pool(Value x, std::string name) {
  return x.graph->add(kGlobalAvgPool, {x}, NoAttrs{}, std::move(name));
}

}  // namespace resnet
