#include "ops/l2_norm.h"

#include <cmath>

#include "base/tensor.h"
#include "ops/shape_rule.h"

namespace resnet {
namespace {

std::vector<TensorType> l2_norm_shape(const InferCall& call) {
  const ShapeRule rule("l2_norm", call);
  rule.inputs(1);
  rule.floating(0, "input");
  return {{rule.in(0).dtype, Shape{}}};
}

void l2_norm_ref(const RefCall& call) {
  with_float(call.in[0].type->dtype, [&](auto tag) {
    using T = decltype(tag);
    const T* x = call.in[0].as<T>();
    double sum = 0;
    for (int64_t i = 0; i < call.in[0].shape().elements(); ++i) {
      const auto v = static_cast<double>(x[i]);
      sum += v * v;
    }
    *call.out[0].as<T>() = static_cast<T>(std::sqrt(sum));
  });
}

Cost l2_norm_cost(const Attributes&, std::span<const TensorType> in, std::span<const TensorType> out) {
  Cost cost = elementwise_cost(in, out, 0);
  cost.flops = 2 * count(in[0]);
  return cost;
}

}  // namespace

const OpDef kL2Norm = {
    .name = "l2_norm", .infer = l2_norm_shape, .grad = no_gradient, .ref = l2_norm_ref, .cost = l2_norm_cost};

Value l2_norm(Value x, std::string name) { return x.graph->add(kL2Norm, {x}, NoAttrs{}, std::move(name)); }

}  // namespace resnet
