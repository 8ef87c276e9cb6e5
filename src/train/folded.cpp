#include "train/folded.h"

#include <cmath>

namespace resnet {

void add_folded(const FoldedConvolution& f, std::map<std::string, Tensor>& values) {
  const auto read = [&](const std::string& name) { return convert(values.at(name), DType::f64); };
  Tensor weight = read(f.weight);
  const Tensor gamma = read(f.gamma), beta = read(f.beta), mean = read(f.mean), variance = read(f.variance);
  Tensor bias = f.bias.empty() ? Tensor(DType::f64, beta.shape()) : read(f.bias);
  const auto channels = static_cast<size_t>(weight.shape()[0]);
  const size_t per_channel = static_cast<size_t>(weight.elements()) / channels;
  for (size_t k = 0; k < channels; ++k) {
    const double scale = gamma.as<double>()[k] / std::sqrt(variance.as<double>()[k] + f.epsilon);
    for (size_t i = 0; i < per_channel; ++i) weight.as<double>()[k * per_channel + i] *= scale;
    double& b = bias.as<double>()[k];
    b = (b - mean.as<double>()[k]) * scale + beta.as<double>()[k];
  }
  values[f.folded_weight] = convert(weight, DType::f32);
  values[f.folded_bias] = convert(bias, DType::f32);
}

}  // namespace resnet
