#include "passes/remove_zero_bias_gradient.h"

#include "ops/batch_norm.h"
#include "ops/channel_sum.h"
#include "ops/fill.h"

namespace resnet {

PassReport remove_zero_bias_gradient(Graph& graph) {
  PassReport report;
  std::map<Value, Value> replacements;
  for (int32_t id : graph.live_nodes()) {
    if (graph.node(id).op != &kChannelSum) continue;
    const Value summed = graph.node(id).inputs[0];
    const Node& source = graph.node(summed);
    if (source.op != &kBatchNormGrad || summed.output != 0) continue;
    if (!std::get<BatchNormAttrs>(source.attributes).training) {
      ++report.skipped["inference statistics"];
      continue;
    }
    replacements[graph.value(id)] = fill(graph, graph.value(id).type(), 0.0);
    ++report.matched;
  }
  graph.replace(replacements);
  return report;
}

}  // namespace resnet
