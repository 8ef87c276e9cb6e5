#include "passes/fuse_convolution_epilogue.h"

#include "ops/conv2d.h"
#include "passes/fuse_relu_tail.h"

namespace resnet {

PassReport fuse_convolution_epilogue(Graph& graph) {
  auto is_plain = [&](Value value) {
    const Node& node = graph.node(value);
    if (node.op != &kConv2d) return false;
    const auto& attrs = std::get<Conv2dAttrs>(node.attributes);
    return attrs.bias && !attrs.relu && !attrs.residual;
  };
  const std::vector<int32_t> live = graph.live_nodes();
  std::map<int32_t, size_t> position;
  for (size_t i = 0; i < live.size(); ++i) position[live[i]] = i;
  // The convolution that runs last: fusing the sum into the other would make it wait for a result that is not there
  // yet. Live order is by depth, so it is the one later in it.
  auto later = [&](const std::vector<Value>& terms) -> size_t {
    const size_t last = position.at(terms[0].node) > position.at(terms[1].node) ? 0 : 1;
    return is_plain(terms[last]) ? last : 1 - last;
  };
  return fuse_relu_tail<Conv2dAttrs>(graph, {.producer = "convolution", .matches = is_plain, .pick = later});
}

}  // namespace resnet
