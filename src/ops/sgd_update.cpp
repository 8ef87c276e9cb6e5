#include "ops/sgd_update.h"

#include <algorithm>
#include <cmath>

#include "base/tensor.h"
#include "ops/shape_rule.h"

namespace resnet {
namespace {

std::vector<TensorType> sgd_update_shape(const InferCall& call) {
  const ShapeRule rule("sgd_update", call);
  const auto& a = std::get<SgdAttrs>(call.attributes);
  const bool momentum = a.momentum != 0;
  if (!(a.momentum >= 0) || !std::isfinite(a.momentum)) rule.fail("momentum is {}, expected 0 or more", a.momentum);
  if (!(a.weight_decay >= 0) || !std::isfinite(a.weight_decay)) {
    rule.fail("weight decay is {}, expected 0 or more", a.weight_decay);
  }
  if (a.nesterov && !momentum) rule.fail("nesterov needs a momentum above 0");
  rule.inputs(size_t{4} + momentum);
  rule.floating(0, "parameter");
  const TensorType& param = rule.in(0);
  rule.type(1, "gradient", param);
  rule.type(2, "learning rate", {param.dtype, {}});
  rule.type(3, "guard", {param.dtype, {}});
  if (!momentum) return {param};
  rule.type(4, "momentum buffer", param);
  return {param, param};
}

void sgd_update_ref(const RefCall& call) {
  const auto& a = std::get<SgdAttrs>(call.attributes);
  const bool momentum = a.momentum != 0;
  const int64_t count = call.in[0].shape().elements();
  with_float(call.in[0].type->dtype, [&](auto tag) {
    using T = decltype(tag);
    const T* param = call.in[0].as<T>();
    const T* grad = call.in[1].as<T>();
    const auto lr = static_cast<double>(*call.in[2].as<T>());
    const bool apply = std::isfinite(*call.in[3].as<T>());
    const T* buffer = momentum ? call.in[4].as<T>() : nullptr;
    for (int64_t i = 0; i < count; ++i) {
      const auto w = static_cast<double>(param[i]);
      double g = static_cast<double>(grad[i]) + a.weight_decay * w;
      if (momentum) {
        const double updated = a.momentum * static_cast<double>(buffer[i]) + g;
        call.out[1].as<T>()[i] = apply ? static_cast<T>(updated) : buffer[i];
        g = a.nesterov ? g + a.momentum * updated : updated;
      }
      call.out[0].as<T>()[i] = apply ? static_cast<T>(w - lr * g) : param[i];
    }
  });
}

Cost sgd_update_cost(const Attributes& attributes, std::span<const TensorType> in, std::span<const TensorType> out) {
  const auto& a = std::get<SgdAttrs>(attributes);
  return elementwise_cost(in, out, 2 + 2 * int{a.weight_decay != 0} + 2 * int{a.momentum != 0} + 2 * int{a.nesterov});
}

constexpr InPlace kOverStates[] = {{0, 0}, {1, 4}};

}  // namespace

const OpDef kSgdUpdate = {.name = "sgd_update",
                          .infer = sgd_update_shape,
                          .grad = no_gradient,
                          .ref = sgd_update_ref,
                          .cost = sgd_update_cost,
                          .in_place = kOverStates};

SgdUpdateResult sgd_update(Value param, Value grad, Value lr, Value guard, Value buffer, SgdAttrs attrs,
                           std::string name) {
  std::vector<Value> inputs{param, grad, lr, guard};
  if (buffer) inputs.push_back(buffer);
  const Value updated = param.graph->add(kSgdUpdate, std::move(inputs), attrs, std::move(name));
  return {updated, buffer ? Value{updated.graph, updated.node, 1} : Value{}};
}

}  // namespace resnet
