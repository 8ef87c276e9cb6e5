#include "models/cifar.h"

#include <numeric>

#include "base/error.h"
#include "ops/avg_pool.h"
#include "ops/pad_channels.h"

namespace resnet::cifar {
namespace {

Value conv3x3(Scope s, Value x, int64_t width, int64_t stride, const Architecture& a) {
  return conv(s, x, width, {.kernel = 3, .stride = stride, .pad = 1, .bias = !a.batch_norm, .init = a.init});
}

Value norm(Scope s, Value x, const Architecture& a, BatchNormOptions options = {}) {
  return a.batch_norm ? batch_norm(s, x, options) : x;
}

/// x[:, :, ::stride, ::stride] with as many channels of zeros before as after it.
Value padded(Scope s, Value x, int64_t width, int64_t stride) {
  const int64_t missing = width - x.shape()[1];
  x = avg_pool(x, {.kernel = {1, 1}, .stride = {stride, stride}}, s.path());
  return pad_channels(x, {.before = missing / 2, .after = missing - missing / 2}, s.path());
}

Value shortcut(Scope s, Value x, int64_t width, int64_t stride, const Architecture& a) {
  if (stride == 1 && x.shape()[1] == width) return x;
  if (a.shortcut == Shortcut::pad) return padded(s, x, width, stride);
  const ConvOptions projection{.kernel = 1, .stride = stride, .bias = !a.batch_norm, .init = a.init};
  return norm(s / 1, conv(s / 0, x, width, projection), a);
}

}  // namespace

Value basic_block(Scope s, Value x, int64_t width, int64_t stride, const Architecture& a, double drop_rate) {
  Value y = relu(norm(s / "bn1", conv3x3(s / "conv1", x, width, stride, a), a));
  y = norm(s / "bn2", conv3x3(s / "conv2", y, width, 1, a), a, {.zero_gamma = a.zero_init_residual});
  if (a.shortcut == Shortcut::none) return relu(y);
  y = drop_path(s / "drop_path", y, drop_rate);
  return relu(y + shortcut(s / "shortcut", x, width, stride, a));
}

Value resnet(Scope s, Value x, const Architecture& a) {
  std::vector<int64_t> blocks = a.blocks;
  if (blocks.empty()) {
    if (a.depth < 8 || (a.depth - 2) % 6 != 0) throw UserError("depth {} is not 6n + 2 with n = 1 or more", a.depth);
    blocks.assign(3, (a.depth - 2) / 6);
  }
  const int64_t count = std::accumulate(blocks.begin(), blocks.end(), int64_t{0});
  x = relu(norm(s / "bn1", conv3x3(s / "conv1", x, 16, 1, a), a));
  int64_t block = 0;
  for (size_t stage = 0; stage < blocks.size(); ++stage) {
    const Scope layer = s / ("layer" + std::to_string(stage + 1));
    for (int64_t i = 0; i < blocks[stage]; ++i, ++block) {
      const int64_t stride = stage > 0 && i == 0 ? 2 : 1;
      x = basic_block(layer / i, x, int64_t{16} << stage, stride, a, drop_path_rate(a.drop_path, block, count));
    }
  }
  return linear(s / "linear", flatten(global_avg_pool(x)), a.num_classes, {.init = a.init});
}

}  // namespace resnet::cifar
