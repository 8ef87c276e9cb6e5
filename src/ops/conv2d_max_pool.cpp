#include "ops/conv2d_max_pool.h"

#include "base/tensor.h"
#include "ops/conv2d.h"
#include "ops/max_pool.h"
#include "ops/shape_rule.h"

namespace resnet {
namespace {

std::vector<TensorType> conv2d_max_pool_shape(const InferCall& call) {
  const auto& a = std::get<ConvPoolAttrs>(call.attributes);
  check(!a.conv.residual, "conv2d_max_pool: a residual");
  const Attributes conv = a.conv;
  const std::vector<TensorType> convolved = kConv2d.infer(InferCall{conv, call.in, call.name});
  const Attributes pool = a.pool;
  return {kMaxPool.infer(InferCall{pool, convolved, call.name})[0]};
}

/// One after the other, by their own definitions.
void conv2d_max_pool_ref(const RefCall& call) {
  const auto& a = std::get<ConvPoolAttrs>(call.attributes);
  const Attributes conv = a.conv;
  const Attributes pool = a.pool;
  std::vector<TensorType> types;
  for (const ConstView& view : call.in) types.push_back(*view.type);
  Tensor convolved(kConv2d.infer(InferCall{conv, types, {}})[0]);
  const View whole[] = {{&convolved.type(), convolved.data()}};
  kConv2d.ref(RefCall{conv, call.in, whole});
  const ConstView in[] = {{&convolved.type(), convolved.data()}};
  Tensor index(DType::u8, call.out[0].shape());
  const View out[] = {call.out[0], {&index.type(), index.data()}};
  kMaxPool.ref(RefCall{pool, in, out});
}

Cost conv2d_max_pool_cost(const Attributes& attributes, std::span<const TensorType> in,
                          std::span<const TensorType> out) {
  const auto& a = std::get<ConvPoolAttrs>(attributes);
  const std::vector<TensorType> convolved = kConv2d.infer(InferCall{a.conv, in, {}});
  Cost cost = elementwise_cost(in, out, static_cast<double>(a.pool.kernel.h * a.pool.kernel.w));
  cost.flops += kConv2d.cost(a.conv, in, convolved).flops;
  return cost;
}

}  // namespace

const OpDef kConv2dMaxPool = {.name = "conv2d_max_pool",
                              .infer = conv2d_max_pool_shape,
                              .grad = no_gradient,
                              .ref = conv2d_max_pool_ref,
                              .cost = conv2d_max_pool_cost};

}  // namespace resnet
