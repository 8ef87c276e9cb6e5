#include "ops/reshape.h"

#include <cstring>

#include "ops/shape_rule.h"

namespace resnet {
namespace {

std::vector<TensorType> reshape_shape(const InferCall& call) {
  const ShapeRule rule("reshape", call);
  const Shape& shape = std::get<ShapeAttrs>(call.attributes).shape;
  rule.inputs(1);
  if (shape.elements() != rule.shape(0).elements()) {
    rule.fail("input {} has {} elements, shape {} has {}", rule.shape(0).str(), rule.shape(0).elements(), shape.str(),
              shape.elements());
  }
  return {{rule.in(0).dtype, shape}};
}

std::vector<Value> reshape_grad(GradContext& context) {
  return {context.add(kReshape, {context.dy()}, ShapeAttrs{context.input(0).shape()})};
}

void reshape_ref(const RefCall& call) {
  // memmove: the reference backend may give both the same buffer.
  const TensorType& type = *call.in[0].type;
  std::memmove(call.out[0].data, call.in[0].data, static_cast<size_t>(type.shape.elements()) * size_of(type.dtype));
}

Cost reshape_cost(const Attributes&, std::span<const TensorType> in, std::span<const TensorType> out) {
  return elementwise_cost(in, out, 0);
}

constexpr InPlace kOverInput[] = {{0, 0}};

}  // namespace

const OpDef kReshape = {.name = "reshape",
                        .infer = reshape_shape,
                        .grad = reshape_grad,
                        .ref = reshape_ref,
                        .cost = reshape_cost,
                        .in_place = kOverInput};

Value reshape(Value x, Shape shape, std::string name) {
  return x.graph->add(kReshape, {x}, ShapeAttrs{std::move(shape)}, std::move(name));
}

Value flatten(Value x, std::string name) {
  const Shape& shape = x.shape();
  check(shape.rank() >= 1, "flatten: a scalar has no first axis to keep");
  int64_t rest = 1;
  for (int axis = 1; axis < shape.rank(); ++axis) rest *= shape[axis];
  return reshape(x, {shape[0], rest}, std::move(name));
}

}  // namespace resnet
