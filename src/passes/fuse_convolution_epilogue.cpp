#include "passes/fuse_convolution_epilogue.h"

#include "ops/add.h"
#include "ops/conv2d.h"
#include "passes/fuse_relu_tail.h"

namespace resnet {
namespace {

std::map<int32_t, size_t> positions(const Graph& graph) {
  const std::vector<int32_t> live = graph.live_nodes();
  std::map<int32_t, size_t> position;
  for (size_t i = 0; i < live.size(); ++i) position[live[i]] = i;
  return position;
}

/// Sums that no activation follows, as in blocks whose activations come first.
void fuse_sums(Graph& graph, PassReport& report) {
  const std::map<Value, int> readers = count_readers(graph);
  const std::map<int32_t, size_t> position = positions(graph);
  auto fits = [&](Value value) {
    const Node& node = graph.node(value);
    if (node.op != &kConv2d) return false;
    const auto& attrs = std::get<Conv2dAttrs>(node.attributes);
    return !attrs.relu && !attrs.residual && has_one_reader(readers, value);
  };
  std::map<Value, Value> replacements;
  for (const int32_t id : graph.live_nodes()) {
    if (graph.node(id).op != &kAdd) continue;
    const std::vector<Value> terms = graph.node(id).inputs;
    if (terms[0] == terms[1]) continue;
    // The one that runs last, as below.
    size_t fused = position.at(terms[0].node) > position.at(terms[1].node) ? 0 : 1;
    if (!fits(terms[fused])) {
      ++report.skipped["the later term of the sum is no convolution of its own"];
      continue;
    }
    const Node conv = graph.node(terms[fused]);
    auto attrs = std::get<Conv2dAttrs>(conv.attributes);
    attrs.residual = true;
    std::vector<Value> inputs = conv.inputs;
    inputs.push_back(terms[1 - fused]);
    replacements[graph.value(id)] = graph.add(kConv2d, inputs, attrs, conv.name);
    ++report.matched;
  }
  graph.replace(replacements);
}

}  // namespace

PassReport fuse_convolution_epilogue(Graph& graph) {
  auto is_plain = [&](Value value) {
    const Node& node = graph.node(value);
    if (node.op != &kConv2d) return false;
    const auto& attrs = std::get<Conv2dAttrs>(node.attributes);
    return attrs.bias && !attrs.relu && !attrs.residual;
  };
  const std::map<int32_t, size_t> position = positions(graph);
  // The convolution that runs last: fusing the sum into the other would make it wait for a result that is not there
  // yet. Live order is by depth, so it is the one later in it.
  auto later = [&](const std::vector<Value>& terms) -> size_t {
    const size_t last = position.at(terms[0].node) > position.at(terms[1].node) ? 0 : 1;
    return is_plain(terms[last]) ? last : 1 - last;
  };
  PassReport report =
      fuse_relu_tail<Conv2dAttrs>(graph, {.producer = "convolution", .matches = is_plain, .pick = later});
  fuse_sums(graph, report);
  return report;
}

}  // namespace resnet
