#include "models/lecture.h"

namespace resnet::lecture {

Value residual(Scope s, Value x, int64_t channels, ResidualOptions options) {
  auto conv3x3 = [&](const char* name, Value in, int64_t stride) {
    return conv(s / name, in, channels,
                {.kernel = 3, .stride = stride, .pad = 1, .bias = true, .init = WeightInit::xavier});
  };
  Value y = relu(batch_norm(s / "bn1", conv3x3("conv1", x, options.strides)));
  y = batch_norm(s / "bn2", conv3x3("conv2", y, 1));
  if (options.use_1x1conv) {
    x = conv(s / "conv3", x, channels,
             {.kernel = 1, .stride = options.strides, .bias = true, .init = WeightInit::xavier});
  }
  return relu(y + x);
}

Value b1(Scope s, Value x, StemOptions options) {
  x = conv(s / 0, x, options.channels,
           {.kernel = 7, .stride = 2, .pad = options.padding, .bias = true, .init = WeightInit::xavier});
  x = relu(batch_norm(s / 1, x));
  return max_pool(x, {.kernel = {3, 3}, .stride = {2, 2}, .pad = {1, 1}}, (s / 3).path());
}

Value resnet_block(Scope s, Value x, int64_t channels, int64_t num_residuals, bool first_block) {
  for (int64_t i = 0; i < num_residuals; ++i) {
    const bool halves = i == 0 && !first_block;
    x = residual(s / i, x, channels, {.use_1x1conv = halves, .strides = halves ? 2 : 1});
  }
  return x;
}

Value resnet18(Scope s, Value x, NetOptions options) {
  x = b1(s / 0, x, {.padding = options.stem_padding});
  x = resnet_block(s / 1, x, 64, 2, true);
  x = resnet_block(s / 2, x, 128, 2);
  x = resnet_block(s / 3, x, 256, 2);
  x = resnet_block(s / 4, x, 512, 2);
  return linear(s / 7, flatten(global_avg_pool(x)), options.num_classes, {.init = WeightInit::xavier});
}

}  // namespace resnet::lecture
