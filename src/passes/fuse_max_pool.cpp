#include "passes/fuse_max_pool.h"

#include "ops/conv2d.h"
#include "ops/conv2d_max_pool.h"
#include "ops/max_pool.h"

namespace resnet {

PassReport fuse_max_pool(Graph& graph) {
  PassReport report;
  const std::map<Value, int> readers = count_readers(graph);
  std::map<Value, Value> replacements;
  for (int32_t id : graph.live_nodes()) {
    if (graph.node(id).op != &kMaxPool) continue;
    const Value convolved = graph.node(id).inputs[0];
    if (graph.node(convolved).op != &kConv2d) continue;
    const Node conv = graph.node(convolved);
    const auto& attrs = std::get<Conv2dAttrs>(conv.attributes);
    if (attrs.residual) {
      ++report.skipped["the convolution has a residual"];
      continue;
    }
    if (!has_one_reader(readers, convolved)) {
      ++report.skipped["the convolution has another reader"];
      continue;
    }
    if (readers.contains(graph.value(id, 1))) {
      ++report.skipped["the pool's index is read"];
      continue;
    }
    const ConvPoolAttrs fused{attrs, std::get<PoolAttrs>(graph.node(id).attributes)};
    replacements[graph.value(id)] = graph.add(kConv2dMaxPool, conv.inputs, fused, conv.name);
    ++report.matched;
  }
  graph.replace(replacements);
  return report;
}

}  // namespace resnet
