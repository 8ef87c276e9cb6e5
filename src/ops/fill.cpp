#include "ops/fill.h"

#include <algorithm>

#include "base/tensor.h"
#include "ops/shape_rule.h"

namespace resnet {
namespace {

std::vector<TensorType> fill_shape(const InferCall& call) {
  ShapeRule("fill", call).inputs(0);
  return {std::get<FillAttrs>(call.attributes).type};
}

std::vector<Value> fill_grad(GradContext&) { return {}; }

void fill_ref(const RefCall& call) {
  const double value = std::get<FillAttrs>(call.attributes).value;
  with_float(call.out[0].type->dtype, [&](auto tag) {
    using T = decltype(tag);
    std::fill_n(call.out[0].as<T>(), call.out[0].shape().elements(), static_cast<T>(value));
  });
}

Cost fill_cost(const Attributes&, std::span<const TensorType> in, std::span<const TensorType> out) {
  return elementwise_cost(in, out, 0);
}

}  // namespace

const OpDef kFill = {.name = "fill", .infer = fill_shape, .grad = fill_grad, .ref = fill_ref, .cost = fill_cost};

Value fill(Graph& graph, TensorType type, double value, std::string name) {
  return graph.add(kFill, {}, FillAttrs{std::move(type), value}, std::move(name));
}

}  // namespace resnet
