#include "train/export.h"

#include "formats/onnx.h"
#include "train/folded.h"
#include "train/inference.h"

namespace resnet {
namespace {

/// The whole numbers and scales as the file has them, between QuantizeLinear and DequantizeLinear.
void export_quantized(ByteSink& sink, Graph& graph, const LoadedModel& model, OnnxOptions options) {
  run_inference_passes(graph, before_quantization());
  const QuantizedGraph quantized = quantize_graph(graph, model.quantization->layers);
  std::map<std::string, Tensor> values = model.values;
  for (const DerivedState& state : quantized.derived)
    values[state.state] = derive(state, model.values, *model.quantization);
  for (const std::string& layer : model.quantization->layers)
    options.output_scales[layer] = model.values.at(layer + ".output_scale").as<float>()[0];
  write_onnx(sink, *quantized.graph, values, options);
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
  const OnnxOptions onnx_options{.opset = options.opset,
                                 .dynamic_batch = options.batch == 0,
                                 .producer_version = RESNET_VERSION,
                                 .graph_name = description.architecture,
                                 .metadata = metadata,
                                 .output_scales = {}};
  if (model.quantization) return export_quantized(sink, *graph, model, onnx_options);
  std::map<std::string, Tensor> values;
  for (const auto& [name, value] : model.values) values[name] = convert(value, DType::f32);
  // Other runtimes fuse for themselves; what they cannot know is that a batch norm's statistics are constant.
  PassOptions passes{.disabled = {"fuse_convolution_epilogue", "fuse_batch_norm_tail", "fuse_max_pool"},
                     .observer = {}};
  if (!options.fold_batch_norm) passes.disabled.insert("fold_batch_norm");
  for (const FoldedConvolution& f : run_inference_passes(*graph, passes)) add_folded(f, values);
  write_onnx(sink, *graph, values, onnx_options);
}

}  // namespace resnet
