#include "models/torchvision.h"

#include <numeric>

namespace resnet::torchvision {
namespace {

Value conv3x3(Scope s, Value x, int64_t width, int64_t stride = 1, int64_t groups = 1) {
  return conv(s, x, width, {.kernel = 3, .stride = stride, .pad = 1, .groups = groups});
}

Value conv1x1(Scope s, Value x, int64_t width, int64_t stride = 1) {
  return conv(s, x, width, {.kernel = 1, .stride = stride});
}

/// x itself, or a strided 1x1 convolution and batch norm where the shape changes (option B).
Value shortcut(Scope s, Value x, int64_t channels, int64_t stride) {
  if (stride == 1 && x.shape()[1] == channels) return x;
  return batch_norm(s / 1, conv1x1(s / 0, x, channels, stride));
}

}  // namespace

Value basic_block(Scope s, Value x, int64_t width, int64_t stride, const ResidualOptions& residual) {
  Value y = relu(batch_norm(s / "bn1", conv3x3(s / "conv1", x, width, stride)));
  y = batch_norm(s / "bn2", conv3x3(s / "conv2", y, width), {.zero_gamma = residual.zero_init});
  y = drop_path(s / "drop_path", y, residual.drop_path);
  return relu(y + shortcut(s / "downsample", x, width, stride));
}

Value bottleneck(Scope s, Value x, int64_t width, int64_t stride, const BottleneckOptions& options,
                 const ResidualOptions& residual) {
  constexpr int64_t kExpansion = 4;
  const int64_t inner = width * options.width_per_group / 64 * options.groups;
  const bool first = options.stride_on == Stride::conv1;
  Value y = relu(batch_norm(s / "bn1", conv1x1(s / "conv1", x, inner, first ? stride : 1)));
  y = relu(batch_norm(s / "bn2", conv3x3(s / "conv2", y, inner, first ? 1 : stride, options.groups)));
  y = batch_norm(s / "bn3", conv1x1(s / "conv3", y, width * kExpansion), {.zero_gamma = residual.zero_init});
  y = drop_path(s / "drop_path", y, residual.drop_path);
  return relu(y + shortcut(s / "downsample", x, width * kExpansion, stride));
}

Value resnet(Scope s, Value x, const Architecture& a) {
  x = conv(s / "conv1", x, 64, {.kernel = 7, .stride = 2, .pad = 3});
  x = relu(batch_norm(s / "bn1", x));
  x = max_pool(x, {.kernel = {3, 3}, .stride = {2, 2}, .pad = {1, 1}}, "maxpool");
  const int64_t blocks = std::accumulate(a.blocks.begin(), a.blocks.end(), int64_t{0});
  int64_t block = 0;
  for (size_t stage = 0; stage < a.blocks.size(); ++stage) {
    const Scope layer = s / ("layer" + std::to_string(stage + 1));
    const int64_t width = int64_t{64} << stage;
    for (int64_t i = 0; i < a.blocks[stage]; ++i, ++block) {
      const int64_t stride = stage > 0 && i == 0 ? 2 : 1;
      const ResidualOptions residual{a.zero_init_residual, drop_path_rate(a.drop_path, block, blocks)};
      x = a.block == Block::basic ? basic_block(layer / i, x, width, stride, residual)
                                  : bottleneck(layer / i, x, width, stride, a.bottleneck, residual);
    }
  }
  return linear(s / "fc", flatten(global_avg_pool(x)), a.num_classes);
}

}  // namespace resnet::torchvision
