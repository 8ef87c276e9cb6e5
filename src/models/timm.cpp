#include "models/timm.h"

#include <numeric>

#include "ops/avg_pool.h"
#include "ops/blur_pool.h"

namespace resnet::timm {
namespace {

Value conv3x3(Scope s, Value x, int64_t width, int64_t stride = 1) {
  return conv(s, x, width, {.kernel = 3, .stride = stride, .pad = 1});
}

Value conv1x1(Scope s, Value x, int64_t width, int64_t stride = 1) {
  return conv(s, x, width, {.kernel = 1, .stride = stride});
}

/// relu(bn(conv3x3(x))), every `stride`-th pixel of it, blurred before if asked for.
Value conv3x3_bn_relu(Scope conv_scope, Scope norm_scope, Value x, int64_t width, int64_t stride, bool blur) {
  const bool blurs = blur && stride > 1;
  x = relu(batch_norm(norm_scope, conv3x3(conv_scope, x, width, blurs ? 1 : stride)));
  return blurs ? blur_pool(x, stride, conv_scope.path() + ".aa") : x;
}

/// x itself where the shape stays. Pixels at an odd edge are averaged with those there are.
Value shortcut(Scope s, Value x, int64_t channels, int64_t stride, bool average) {
  if (stride == 1 && x.shape()[1] == channels) return x;
  if (!average) return batch_norm(s / 1, conv1x1(s / 0, x, channels, stride));
  const PoolAttrs pool{.kernel = {2, 2}, .stride = {stride, stride}, .count_include_pad = false, .ceil_mode = true};
  if (stride > 1) x = avg_pool(x, pool, (s / 0).path());
  return batch_norm(s / 2, conv1x1(s / 1, x, channels));
}

/// What both blocks end with: y is their branch.
Value attend_and_add(Scope s, Value y, Value x, int64_t stride, const BlockOptions& o) {
  if (o.attention == Attention::squeeze_excite) y = squeeze_excite(s / "se", y);
  if (o.attention == Attention::efficient) y = efficient_channel_attention(s / "se", y);
  y = drop_path(s / "drop_path", y, o.drop_path);
  return relu(y + shortcut(s / "downsample", x, y.shape()[1], stride, o.average_shortcut));
}

Value stem(Scope s, Value x, int64_t deep_width) {
  if (deep_width == 0) return conv(s / "conv1", x, 64, {.kernel = 7, .stride = 2, .pad = 3});
  const Scope c = s / "conv1";
  x = relu(batch_norm(c / 1, conv3x3(c / 0, x, deep_width, 2)));
  x = relu(batch_norm(c / 4, conv3x3(c / 3, x, deep_width)));
  return conv3x3(c / 6, x, 2 * deep_width);
}

}  // namespace

Value basic_block(Scope s, Value x, int64_t width, int64_t stride, const BlockOptions& o) {
  Value y = conv3x3_bn_relu(s / "conv1", s / "bn1", x, width, stride, o.blur);
  y = batch_norm(s / "bn2", conv3x3(s / "conv2", y, width), {.zero_gamma = o.zero_init});
  return attend_and_add(s, y, x, stride, o);
}

Value bottleneck(Scope s, Value x, int64_t width, int64_t stride, const BlockOptions& o) {
  constexpr int64_t kExpansion = 4;
  Value y = relu(batch_norm(s / "bn1", conv1x1(s / "conv1", x, width)));
  y = conv3x3_bn_relu(s / "conv2", s / "bn2", y, width, stride, o.blur);
  y = batch_norm(s / "bn3", conv1x1(s / "conv3", y, width * kExpansion), {.zero_gamma = o.zero_init});
  return attend_and_add(s, y, x, stride, o);
}

Value resnet(Scope s, Value x, const Architecture& a) {
  x = relu(batch_norm(s / "bn1", stem(s, x, a.deep_stem)));
  const int64_t pool_stride = a.options.blur ? 1 : 2;
  x = max_pool(x, {.kernel = {3, 3}, .stride = {pool_stride, pool_stride}, .pad = {1, 1}}, "maxpool");
  if (a.options.blur) x = blur_pool(x, 2, "maxpool.1");
  const int64_t blocks = std::accumulate(a.blocks.begin(), a.blocks.end(), int64_t{0});
  int64_t block = 0;
  for (size_t stage = 0; stage < a.blocks.size(); ++stage) {
    const Scope layer = s / ("layer" + std::to_string(stage + 1));
    const int64_t width = int64_t{64} << stage;
    for (int64_t i = 0; i < a.blocks[stage]; ++i, ++block) {
      BlockOptions options = a.options;
      options.drop_path = drop_path_rate(a.options.drop_path, block, blocks);
      const int64_t stride = stage > 0 && i == 0 ? 2 : 1;
      x = a.block == Block::basic ? basic_block(layer / i, x, width, stride, options)
                                  : bottleneck(layer / i, x, width, stride, options);
    }
  }
  return linear(s / "fc", flatten(global_avg_pool(x)), a.num_classes);
}

}  // namespace resnet::timm
