#pragma once
// A trained model for other runtimes: its inference graph as an ONNX file.

#include <map>
#include <string>

#include "formats/file_io.h"
#include "train/model_file.h"

namespace resnet {

struct ExportOptions {
  int64_t opset = 13;           ///< 13 to 17
  bool fold_batch_norm = true;  ///< into the convolution before it; false: BatchNormalization nodes
  int64_t batch = 0;            ///< images; 0: any number, a dimension named "batch"
};

/// input "images" f32 [N,C,S,S], preprocessed as the metadata say; output "logits" f32 [N,K]. The weights are
/// initializers, f32 (f64 ones are rounded; folding is done in double), under the model's names; `metadata` go into
/// metadata_props, the class names and the preprocessing among them. A quantised model keeps its 8-bit weights, between
/// QuantizeLinear and DequantizeLinear; its batch norm is folded whatever the options say. Throws as write_onnx.
void export_onnx(ByteSink& sink, const LoadedModel& model, const std::map<std::string, std::string>& metadata,
                 const ExportOptions& options);

}  // namespace resnet
