#include "train/export.h"

#include <cmath>

#include "formats/onnx.h"
#include "train/inference.h"

namespace resnet {
namespace {

/// The weight and bias that FoldedConvolution's formula gives, computed in double.
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

}  // namespace

void export_onnx(ByteSink& sink, const LoadedModel& model, const std::map<std::string, std::string>& metadata,
                 const ExportOptions& options) {
  const ModelDescription& description = model.description;
  const ModelSpec spec = find_model(description.architecture);
  const int64_t size = description.preprocessing.image_size;
  const auto graph =
      make_inference_graph(spec, {.model = description.options,
                                  .images = {options.batch > 0 ? options.batch : 1, description.channels, size, size}});
  std::map<std::string, Tensor> values;
  for (const auto& [name, value] : model.values) values[name] = convert(value, DType::f32);
  // Other runtimes fuse for themselves; what they cannot know is that a batch norm's statistics are constant.
  PassOptions passes{.disabled = {"fuse_convolution_epilogue", "fuse_batch_norm_tail"}, .observer = {}};
  if (!options.fold_batch_norm) passes.disabled.insert("fold_batch_norm");
  for (const FoldedConvolution& f : run_inference_passes(*graph, passes)) add_folded(f, values);
  write_onnx(sink, *graph, values,
             {.opset = options.opset,
              .dynamic_batch = options.batch == 0,
              .producer_version = RESNET_VERSION,
              .graph_name = description.architecture,
              .metadata = metadata});
}

}  // namespace resnet
