#include "models/preact.h"

#include <numeric>

namespace resnet::preact {
namespace {

Value conv3x3(Scope s, Value x, int64_t width, int64_t stride = 1) {
  return conv(s, x, width, {.kernel = 3, .stride = stride, .pad = 1});
}

Value conv1x1(Scope s, Value x, int64_t width, int64_t stride = 1) {
  return conv(s, x, width, {.kernel = 1, .stride = stride});
}

Value norm_relu(Scope s, Value x) { return relu(batch_norm(s, x)); }

int64_t sum(const std::vector<int64_t>& blocks) { return std::accumulate(blocks.begin(), blocks.end(), int64_t{0}); }

/// The stages, the last norm, and the classifier, of timm's names. The first stage has `channels`.
Value stages_and_head(Scope s, Value x, int64_t channels, Stride stride_on, const Architecture& a) {
  int64_t block = 0;
  for (size_t stage = 0; stage < a.blocks.size(); ++stage, channels *= 2) {
    const Scope blocks = s / "stages" / static_cast<int64_t>(stage) / "blocks";
    for (int64_t i = 0; i < a.blocks[stage]; ++i, ++block) {
      x = bottleneck(blocks / i, x, channels,
                     {.stride = stage > 0 && i == 0 ? 2 : 1,
                      .stride_on = stride_on,
                      .project = i == 0,
                      .drop_path = drop_path_rate(a.drop_path, block, sum(a.blocks))});
    }
  }
  x = global_avg_pool(norm_relu(s / "norm", x));
  return flatten(conv(s / "head" / "fc", x, a.num_classes, {.kernel = 1, .bias = true, .init = WeightInit::pytorch}));
}

}  // namespace

Value bottleneck(Scope s, Value x, int64_t channels, const BottleneckOptions& o) {
  const int64_t inner = channels / 4;
  const bool first = o.stride_on == Stride::conv1;
  const Value active = norm_relu(s / "norm1", x);
  Value y = conv1x1(s / "conv1", active, inner, first ? o.stride : 1);
  y = conv3x3(s / "conv2", norm_relu(s / "norm2", y), inner, first ? 1 : o.stride);
  y = conv1x1(s / "conv3", norm_relu(s / "norm3", y), channels);
  y = drop_path(s / "drop_path", y, o.drop_path);
  return y + (o.project ? conv1x1(s / "downsample" / "conv", active, channels, o.stride) : x);
}

Value resnetv2(Scope s, Value x, const Architecture& a) {
  x = conv(s / "stem" / "conv", x, 64, {.kernel = 7, .stride = 2, .pad = 3});
  x = max_pool(x, {.kernel = {3, 3}, .stride = {2, 2}, .pad = {1, 1}}, "stem.pool");
  return stages_and_head(s, x, 256, Stride::conv2, a);
}

Value resnet_cifar(Scope s, Value x, const Architecture& a) {
  return stages_and_head(s, conv3x3(s / "stem" / "conv", x, 16), 64, Stride::conv1, a);
}

Value wide_block(Scope s, Value x, int64_t channels, int64_t stride, double drop_rate) {
  const Value active = norm_relu(s / "bn1", x);
  Value y = norm_relu(s / "bn2", conv3x3(s / "conv1", active, channels, stride));
  y = drop_path(s / "drop_path", conv3x3(s / "conv2", y, channels), drop_rate);
  const bool same = x.shape()[1] == channels && stride == 1;
  return y + (same ? x : conv1x1(s / "convShortcut", active, channels, stride));
}

Value wide_resnet_cifar(Scope s, Value x, const WideArchitecture& a) {
  x = conv3x3(s / "conv1", x, 16);
  int64_t block = 0;
  for (size_t stage = 0; stage < a.blocks.size(); ++stage) {
    const Scope layer = s / ("block" + std::to_string(stage + 1)) / "layer";
    const int64_t channels = (int64_t{16} << stage) * a.width;
    for (int64_t i = 0; i < a.blocks[stage]; ++i, ++block) {
      x = wide_block(layer / i, x, channels, stage > 0 && i == 0 ? 2 : 1,
                     drop_path_rate(a.drop_path, block, sum(a.blocks)));
    }
  }
  return linear(s / "fc", flatten(global_avg_pool(norm_relu(s / "bn1", x))), a.num_classes);
}

}  // namespace resnet::preact
