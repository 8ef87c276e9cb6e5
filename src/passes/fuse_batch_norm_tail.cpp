#include "passes/fuse_batch_norm_tail.h"

#include "ops/add.h"
#include "ops/batch_norm.h"
#include "ops/relu.h"

namespace resnet {
namespace {

bool is_plain_batch_norm(const Graph& graph, Value value) {
  const Node& node = graph.node(value);
  if ((node.op != &kBatchNorm && node.op != &kBatchNormInference) || value.output != 0) return false;
  const auto& attrs = std::get<BatchNormAttrs>(node.attributes);
  return !attrs.relu && !attrs.residual;
}

}  // namespace

PassReport fuse_batch_norm_tail(Graph& graph) {
  PassReport report;
  const std::map<Value, int> readers = count_readers(graph);
  std::map<Value, Value> replacements;
  for (int32_t id : graph.live_nodes()) {
    if (graph.node(id).op != &kRelu) continue;
    const Value activated = graph.node(id).inputs[0];
    if (graph.node(activated).kind != NodeKind::op) continue;
    if (!has_one_reader(readers, activated)) {
      ++report.skipped["the value under the relu has another reader"];
      continue;
    }
    Value norm = activated;
    Value residual;
    if (graph.node(activated).op == &kAdd) {
      const auto& terms = graph.node(activated).inputs;
      // The branch is written first in `relu(y + shortcut)`; with both sides normalised it is the one fused.
      const size_t branch = is_plain_batch_norm(graph, terms[0]) && has_one_reader(readers, terms[0]) ? 0 : 1;
      norm = terms[branch];
      residual = terms[1 - branch];
    }
    if (!is_plain_batch_norm(graph, norm)) continue;
    if (!has_one_reader(readers, norm)) {
      ++report.skipped["the batch norm has another reader"];
      continue;
    }
    const Node old = graph.node(norm);
    auto attrs = std::get<BatchNormAttrs>(old.attributes);
    attrs.relu = true;
    std::vector<Value> inputs = old.inputs;
    if (residual) {
      attrs.residual = true;
      inputs.push_back(residual);
    }
    const Value fused = graph.add(*old.op, inputs, attrs, old.name);
    replacements[graph.value(id)] = fused;
    for (size_t i = 1; i < old.outputs.size(); ++i) {
      const auto output = static_cast<int32_t>(i);
      replacements[graph.value(norm.node, output)] = graph.value(fused.node, output);
    }
    ++report.matched;
  }
  graph.replace(replacements);
  return report;
}

}  // namespace resnet
