#include "ops/scale.h"

#include "base/tensor.h"
#include "ops/shape_rule.h"

namespace resnet {
namespace {

bool is_factor_of(const Shape& s, const Shape& x) { return s == Shape{x[0], x[1], 1, 1} || s == Shape{x[0]}; }

std::vector<TensorType> scale_shape(const InferCall& call) {
  const ShapeRule rule("scale", call);
  rule.inputs(2);
  rule.rank(0, "input", 4, "N,C,H,W");
  rule.floating(0, "input");
  const Shape& x = rule.shape(0);
  if (rule.in(1).dtype != rule.in(0).dtype || !is_factor_of(rule.shape(1), x)) {
    rule.fail("the factor is {}, the input {}; expected a factor of each map, [{},{},1,1], or of each image, [{}]",
              rule.in(1).str(), rule.in(0).str(), x[0], x[1], x[0]);
  }
  return {rule.in(0)};
}

std::vector<Value> scale_grad(GradContext& context) {
  const Value x = context.input(0), s = context.input(1);
  return {context.needs(0) ? context.add(kScale, {context.dy(), s}) : Value{},
          context.needs(1) ? context.add(kScaleGrad, {context.dy(), x}, ShapeAttrs{s.shape()}) : Value{}};
}

void scale_ref(const RefCall& call) {
  const int64_t shared = call.in[0].shape().elements() / call.in[1].shape().elements();
  with_float(call.in[0].type->dtype, [&](auto tag) {
    using T = decltype(tag);
    const T* x = call.in[0].as<T>();
    T* y = call.out[0].as<T>();
    for (int64_t i = 0; i < call.in[0].shape().elements(); ++i) y[i] = x[i] * call.in[1].as<T>()[i / shared];
  });
}

std::vector<TensorType> grad_shape(const InferCall& call) {
  const ShapeRule rule("scale_grad", call);
  rule.inputs(2);
  rule.rank(0, "dy", 4, "N,C,H,W");
  rule.floating(0, "dy");
  rule.type(1, "input", rule.in(0));
  const Shape& s = std::get<ShapeAttrs>(call.attributes).shape;
  check(is_factor_of(s, rule.shape(0)), "scale_grad: the shape attribute is no factor's");
  return {{rule.in(0).dtype, s}};
}

void grad_ref(const RefCall& call) {
  const int64_t factors = call.out[0].shape().elements();
  const int64_t shared = call.in[0].shape().elements() / factors;
  with_float(call.in[0].type->dtype, [&](auto tag) {
    using T = decltype(tag);
    const T* dy = call.in[0].as<T>();
    const T* x = call.in[1].as<T>();
    for (int64_t f = 0; f < factors; ++f) {
      double sum = 0;
      for (int64_t i = f * shared; i < (f + 1) * shared; ++i)
        sum += static_cast<double>(dy[i]) * static_cast<double>(x[i]);
      call.out[0].as<T>()[f] = static_cast<T>(sum);
    }
  });
}

Cost scale_cost(const Attributes&, std::span<const TensorType> in, std::span<const TensorType> out) {
  return elementwise_cost(in, out, 1);
}

Cost grad_cost(const Attributes&, std::span<const TensorType> in, std::span<const TensorType> out) {
  Cost cost = elementwise_cost(in, out, 0);
  cost.flops = 2 * count(in[0]);
  return cost;
}

constexpr InPlace kOverInput[] = {{0, 0}};

}  // namespace

const OpDef kScale = {.name = "scale",
                      .infer = scale_shape,
                      .grad = scale_grad,
                      .ref = scale_ref,
                      .cost = scale_cost,
                      .in_place = kOverInput};

const OpDef kScaleGrad = {
    .name = "scale_grad", .infer = grad_shape, .grad = no_gradient, .ref = grad_ref, .cost = grad_cost};

Value scale(Value x, Value s, std::string name) { return x.graph->add(kScale, {x, s}, NoAttrs{}, std::move(name)); }

}  // namespace resnet
