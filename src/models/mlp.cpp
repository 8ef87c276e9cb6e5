#include "models/mlp.h"

#include "base/error.h"

namespace resnet::mlp {
namespace {

Value linear_and_norm(Scope linear_scope, Scope norm_scope, Value x, const Architecture& a,
                      BatchNormOptions options = {}) {
  x = linear(linear_scope, x, a.width, {.bias = !a.batch_norm, .init = a.init});
  return a.batch_norm ? batch_norm(norm_scope, x, options) : x;
}

}  // namespace

Value block(Scope s, Value x, const Architecture& a) {
  Value y = relu(linear_and_norm(s / "linear1", s / "bn1", x, a));
  y = linear_and_norm(s / "linear2", s / "bn2", y, a, {.zero_gamma = a.zero_init_residual});
  return a.shortcut ? relu(y + x) : relu(y);
}

Value resnet(Scope s, Value x, const Architecture& a) {
  if (a.depth < 4 || a.depth % 2 != 0) throw UserError("depth {} is not 2n + 2 with n = 1 or more", a.depth);
  x = relu(linear_and_norm(s / "linear1", s / "bn1", flatten(x), a));
  for (int64_t i = 0; i < (a.depth - 2) / 2; ++i) x = block(s / "blocks" / i, x, a);
  return linear(s / "linear", x, a.num_classes, {.init = a.init});
}

}  // namespace resnet::mlp
