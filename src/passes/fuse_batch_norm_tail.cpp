#include "passes/fuse_batch_norm_tail.h"

#include "ops/batch_norm.h"
#include "passes/fuse_relu_tail.h"

namespace resnet {

PassReport fuse_batch_norm_tail(Graph& graph) {
  auto is_plain = [&](Value value) {
    const Node& node = graph.node(value);
    if ((node.op != &kBatchNorm && node.op != &kBatchNormInference) || value.output != 0) return false;
    const auto& attrs = std::get<BatchNormAttrs>(node.attributes);
    return !attrs.relu && !attrs.residual;
  };
  // The branch is written first in `relu(y + shortcut)`; with both sides normalised it is the one fused.
  auto branch = [&, readers = count_readers(graph)](const std::vector<Value>& terms) -> size_t {
    return is_plain(terms[0]) && has_one_reader(readers, terms[0]) ? 0 : 1;
  };
  return fuse_relu_tail<BatchNormAttrs>(graph, {.producer = "batch norm", .matches = is_plain, .pick = branch});
}

}  // namespace resnet
