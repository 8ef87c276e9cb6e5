#include "ops/channel_sum.h"

#include "base/tensor.h"
#include "ops/shape_rule.h"

namespace resnet {
namespace {

std::vector<TensorType> channel_sum_shape(const InferCall& call) {
  const ShapeRule rule("channel_sum", call);
  rule.inputs(1);
  rule.floating(0, "input");
  if (rule.shape(0).rank() < 2) rule.fail("input has shape {}, expected [N,C,...]", rule.shape(0).str());
  return {{rule.in(0).dtype, {rule.shape(0)[1]}}};
}

void channel_sum_ref(const RefCall& call) {
  const Shape& shape = call.in[0].shape();
  const int64_t C = shape[1];
  const int64_t P = pixels(shape);
  with_float(call.in[0].type->dtype, [&](auto tag) {
    using T = decltype(tag);
    const T* x = call.in[0].as<T>();
    for (int64_t c = 0; c < C; ++c) {
      double sum = 0;
      for (int64_t n = 0; n < shape[0]; ++n) {
        for (int64_t p = 0; p < P; ++p) sum += static_cast<double>(x[(n * C + c) * P + p]);
      }
      call.out[0].as<T>()[c] = static_cast<T>(sum);
    }
  });
}

Cost channel_sum_cost(const Attributes&, std::span<const TensorType> in, std::span<const TensorType> out) {
  Cost cost = elementwise_cost(in, out, 0);
  cost.flops = count(in[0]);
  return cost;
}

}  // namespace

const OpDef kChannelSum = {.name = "channel_sum",
                           .infer = channel_sum_shape,
                           .grad = no_gradient,
                           .ref = channel_sum_ref,
                           .cost = channel_sum_cost};

Value channel_sum(Value x, std::string name) { return x.graph->add(kChannelSum, {x}, NoAttrs{}, std::move(name)); }

}  // namespace resnet
