#pragma once
// Model files small enough to make, load and run in milliseconds, with statistics that matter.

#include <string>

#include "base/rng.h"
#include "formats/safetensors.h"
#include "train/model_file.h"
#include "train/model_state.h"

namespace resnet::testing {

/// ResNet-20 for CIFAR on `channels` (1 to 3) of `size` pixels; every weight and statistic drawn from `seed`.
inline ModelFile small_model(uint64_t seed, int64_t size = 20, DType dtype = DType::f32, int64_t channels = 3) {
  ModelDescription d;
  d.architecture = "resnet20_cifar_a";
  d.options.num_classes = 5;
  d.channels = channels;
  d.class_names = {"ant", "bee", "cat", "dog", "elk"};
  d.preprocessing.image_size = size;
  d.preprocessing.mean = {0.4f, 0.5f, 0.6f};
  d.preprocessing.std = {0.2f, 0.25f, 0.3f};
  d.preprocessing.mean.resize(static_cast<size_t>(channels));
  d.preprocessing.std.resize(static_cast<size_t>(channels));
  ModelSpec spec = find_model(d.architecture);
  spec.input = {channels, size, size};
  ModelFile file{.metadata = to_metadata(d), .tensors = {}};
  for (const StateSpec& state : model_states(spec, d.options, dtype)) {
    Tensor value = initial_value(state, seed);
    Rng rng(hash_combine(seed, hash_text(state.name)));
    with_float(dtype, [&](auto tag) {
      using T = decltype(tag);
      if (value.shape().rank() == 1) {  // a batch norm's, or a bias
        for (T& v : value.as<T>()) v = static_cast<T>(static_cast<double>(v) + rng.uniform(-0.3, 0.3));
      }
    });
    file.tensors[state.name] = std::move(value);
  }
  return file;
}

/// Pixels of an image drawn from `seed`.
inline std::vector<uint8_t> random_pixels(uint64_t seed, int64_t height, int64_t width, int64_t channels = 3) {
  Rng rng(seed);
  std::vector<uint8_t> pixels(static_cast<size_t>(channels * height * width));
  for (uint8_t& pixel : pixels) pixel = static_cast<uint8_t>(rng.uniform(0, 256));
  return pixels;
}

}  // namespace resnet::testing
