#pragma once
// A graph of ours as an ONNX file (https://onnx.ai, onnx/onnx.proto), for other runtimes to run.

#include <map>
#include <string>
#include <vector>

#include "formats/file_io.h"
#include "graph/graph.h"

namespace resnet {

inline constexpr int64_t kOldestOpset = 13, kNewestOpset = 17;

struct OnnxOptions {
  int64_t opset = kOldestOpset;  ///< of the default domain, kOldestOpset to kNewestOpset
  bool dynamic_batch = true;     ///< the first dimension of inputs and outputs is "batch", not the graph's number
  std::string producer_version;
  std::string graph_name = "resnet";
  std::map<std::string, std::string> metadata;  ///< metadata_props
  /// Of quantised convolutions by name: what a step of the result is in real numbers. The others follow.
  std::map<std::string, float> output_scales;
};

/// Quantised ops become the convolution, sum and ReLU in real numbers between QuantizeLinear and DequantizeLinear
/// ("QDQ"), which runtimes replace by their own 8-bit kernels.
/// Writes the forward graph: its inputs and outputs keep their names, its states become initializers with the values
/// of `states`, under the same names; a node is named after the layer. Throws UserError for an opset out of range, an
/// op that has no form in ONNX, a node that needs the batch size while it is dynamic, text that is not UTF-8;
/// ResourceError (limit) past the 2 GiB of a protobuf message.
void write_onnx(ByteSink& sink, const Graph& graph, const std::map<std::string, Tensor>& states,
                const OnnxOptions& options);

/// The ops that have a form in ONNX, by name.
std::vector<std::string> onnx_ops();

}  // namespace resnet
