#include "ops/add.h"

#include "base/tensor.h"
#include "ops/shape_rule.h"

namespace resnet {
namespace {

std::vector<TensorType> add_shape(const InferCall& call) {
  const ShapeRule rule("add", call);
  rule.inputs(2);
  rule.floating(0, "left side");
  if (rule.in(0) != rule.in(1)) {
    rule.fail(
        "left side is {}, right side is {}; both sides of a sum must agree (does the shortcut need a 1x1 convolution?)",
        rule.in(0).str(), rule.in(1).str());
  }
  return {rule.in(0)};
}

std::vector<Value> add_grad(GradContext& context) {
  return {context.needs(0) ? context.dy() : Value{}, context.needs(1) ? context.dy() : Value{}};
}

void add_ref(const RefCall& call) {
  with_float(call.in[0].type->dtype, [&](auto tag) {
    using T = decltype(tag);
    const T* a = call.in[0].as<T>();
    const T* b = call.in[1].as<T>();
    T* y = call.out[0].as<T>();
    for (int64_t i = 0; i < call.in[0].shape().elements(); ++i) y[i] = a[i] + b[i];
  });
}

Cost add_cost(const Attributes&, std::span<const TensorType> in, std::span<const TensorType> out) {
  return elementwise_cost(in, out, 1);
}

constexpr InPlace kOverEither[] = {{0, 0}, {0, 1}};

}  // namespace

const OpDef kAdd = {
    .name = "add", .infer = add_shape, .grad = add_grad, .ref = add_ref, .cost = add_cost, .in_place = kOverEither};

Value add(Value a, Value b, std::string name) { return a.graph->add(kAdd, {a, b}, NoAttrs{}, std::move(name)); }
Value operator+(Value a, Value b) { return add(a, b); }

}  // namespace resnet
