#include "ops/running_average.h"

#include <cmath>

#include "base/tensor.h"
#include "ops/shape_rule.h"

namespace resnet {
namespace {

std::vector<TensorType> running_average_shape(const InferCall& call) {
  const ShapeRule rule("running_average", call);
  rule.inputs(3);
  rule.floating(0, "running");
  rule.type(1, "batch", rule.in(0));
  rule.type(2, "guard", {rule.in(0).dtype, {}});
  return {rule.in(0)};
}

void running_average_ref(const RefCall& call) {
  const auto& a = std::get<RunningAverageAttrs>(call.attributes);
  with_float(call.in[0].type->dtype, [&](auto tag) {
    using T = decltype(tag);
    const T* running = call.in[0].as<T>();
    const T* batch = call.in[1].as<T>();
    const bool apply = std::isfinite(*call.in[2].as<T>());
    for (int64_t i = 0; i < call.in[0].shape().elements(); ++i) {
      const double mixed =
          (1 - a.momentum) * static_cast<double>(running[i]) + a.momentum * a.scale * static_cast<double>(batch[i]);
      call.out[0].as<T>()[i] = apply ? static_cast<T>(mixed) : running[i];
    }
  });
}

Cost running_average_cost(const Attributes&, std::span<const TensorType> in, std::span<const TensorType> out) {
  return elementwise_cost(in, out, 3);
}

constexpr InPlace kOverRunning[] = {{0, 0}};

}  // namespace

const OpDef kRunningAverage = {.name = "running_average",
                               .infer = running_average_shape,
                               .grad = no_gradient,
                               .ref = running_average_ref,
                               .cost = running_average_cost,
                               .in_place = kOverRunning};

Value running_average(Value running, Value batch, Value guard, RunningAverageAttrs attrs, std::string name) {
  return running.graph->add(kRunningAverage, {running, batch, guard}, attrs, std::move(name));
}

}  // namespace resnet
