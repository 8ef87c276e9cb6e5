#include "passes/fold_batch_norm.h"

#include <algorithm>

#include "ops/batch_norm.h"
#include "ops/conv2d.h"

namespace resnet {

PassReport fold_batch_norm(Graph& graph, std::vector<FoldedConvolution>& folded) {
  PassReport report;
  const std::map<Value, int> readers = count_readers(graph);
  std::map<Value, Value> replacements;
  for (int32_t id : graph.live_nodes()) {
    if (graph.node(id).op != &kBatchNormInference) continue;
    const Node norm = graph.node(id);
    const auto& norm_attrs = std::get<BatchNormAttrs>(norm.attributes);
    const Value convolved = norm.inputs[0];
    if (graph.node(convolved).op != &kConv2d) continue;
    const Node conv = graph.node(convolved);
    auto attrs = std::get<Conv2dAttrs>(conv.attributes);
    if (norm_attrs.residual || norm_attrs.relu || attrs.residual || attrs.relu) {
      ++report.skipped["already fused with what follows"];
      continue;
    }
    if (!has_one_reader(readers, convolved)) {
      ++report.skipped["the convolution has another reader"];
      continue;
    }
    if (readers.at(conv.inputs[1]) > 1) {
      ++report.skipped["the weight has another reader"];
      continue;
    }
    auto is_state = [&](Value value) { return graph.node(value).kind == NodeKind::state; };
    const bool states = std::all_of(norm.inputs.begin() + 1, norm.inputs.end(), is_state) &&
                        std::all_of(conv.inputs.begin() + 1, conv.inputs.end(), is_state);
    if (!states) {
      ++report.skipped["a parameter is not a state"];
      continue;
    }
    auto name = [&](Value value) { return graph.node(value).name; };
    FoldedConvolution f;
    f.weight = name(conv.inputs[1]);
    if (attrs.bias) f.bias = name(conv.inputs[2]);
    f.gamma = name(norm.inputs[1]);
    f.beta = name(norm.inputs[2]);
    f.mean = name(norm.inputs[3]);
    f.variance = name(norm.inputs[4]);
    f.epsilon = norm_attrs.epsilon;
    f.folded_weight = f.weight + "@folded";
    f.folded_bias = f.folded_weight + ".bias";
    attrs.bias = true;
    const TensorType weight_type = conv.inputs[1].type();
    const Value weight = graph.state(f.folded_weight, weight_type, {}, false);
    const Value bias = graph.state(f.folded_bias, {weight_type.dtype, Shape{weight_type.shape[0]}}, {}, false);
    replacements[graph.value(id)] = graph.add(kConv2d, {conv.inputs[0], weight, bias}, attrs, conv.name);
    folded.push_back(std::move(f));
    ++report.matched;
  }
  graph.replace(replacements);
  return report;
}

}  // namespace resnet
