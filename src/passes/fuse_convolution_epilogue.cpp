#include "passes/fuse_convolution_epilogue.h"

#include "ops/add.h"
#include "ops/conv2d.h"
#include "ops/relu.h"

namespace resnet {
namespace {

bool is_plain_convolution(const Graph& graph, Value value) {
  const Node& node = graph.node(value);
  if (node.op != &kConv2d) return false;
  const auto& attrs = std::get<Conv2dAttrs>(node.attributes);
  return attrs.bias && !attrs.relu && !attrs.residual;
}

/// The convolution that runs last: fusing the sum into the other would make it wait for a result that
/// is not there yet. Live order is by depth, so it is the one later in it.
size_t later_term(const std::map<int32_t, size_t>& position, const std::vector<Value>& terms) {
  return position.at(terms[0].node) > position.at(terms[1].node) ? 0 : 1;
}

}  // namespace

PassReport fuse_convolution_epilogue(Graph& graph) {
  PassReport report;
  const std::map<Value, int> readers = count_readers(graph);
  const std::vector<int32_t> live = graph.live_nodes();
  std::map<int32_t, size_t> position;
  for (size_t i = 0; i < live.size(); ++i) position[live[i]] = i;
  std::map<Value, Value> replacements;
  for (int32_t id : live) {
    if (graph.node(id).op != &kRelu) continue;
    const Value activated = graph.node(id).inputs[0];
    if (graph.node(activated).kind != NodeKind::op) continue;
    if (!has_one_reader(readers, activated)) {
      ++report.skipped["the value under the relu has another reader"];
      continue;
    }
    Value conv = activated;
    Value residual;
    if (graph.node(activated).op == &kAdd) {
      const auto& terms = graph.node(activated).inputs;
      size_t branch = later_term(position, terms);
      if (!is_plain_convolution(graph, terms[branch])) branch = 1 - branch;
      conv = terms[branch];
      residual = terms[1 - branch];
      if (conv == residual) continue;
    }
    if (!is_plain_convolution(graph, conv)) continue;
    if (!has_one_reader(readers, conv)) {
      ++report.skipped["the convolution has another reader"];
      continue;
    }
    const Node old = graph.node(conv);
    auto attrs = std::get<Conv2dAttrs>(old.attributes);
    attrs.relu = true;
    std::vector<Value> inputs = old.inputs;
    if (residual) {
      attrs.residual = true;
      inputs.push_back(residual);
    }
    replacements[graph.value(id)] = graph.add(kConv2d, inputs, attrs, old.name);
    ++report.matched;
  }
  graph.replace(replacements);
  return report;
}

}  // namespace resnet
