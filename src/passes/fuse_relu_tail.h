#pragma once
// What fuse_batch_norm_tail and fuse_convolution_epilogue have in common.

#include <functional>

#include "ops/add.h"
#include "ops/relu.h"
#include "passes/pass.h"

namespace resnet {

struct ReluTailRule {
  const char* producer;                                         ///< its name, for the report
  std::function<bool(Value)> matches;                           ///< may this value be fused with what follows?
  std::function<size_t(const std::vector<Value>& terms)> pick;  ///< which of a sum's two terms to fuse
};

/// relu(producer)            ==>   producer relu
/// relu(producer + other)    ==>   producer(..., other) residual relu
/// for producers with attributes `Attrs`. Leaves alone: a producer or sum with another reader.
template <class Attrs>
PassReport fuse_relu_tail(Graph& graph, const ReluTailRule& rule) {
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
    Value producer = activated;
    Value residual;
    if (graph.node(activated).op == &kAdd) {
      const std::vector<Value>& terms = graph.node(activated).inputs;
      const size_t picked = rule.pick(terms);
      producer = terms[picked];
      residual = terms[1 - picked];
    }
    if (!rule.matches(producer)) continue;
    if (!has_one_reader(readers, producer)) {
      ++report.skipped[fmt::format("the {} has another reader", rule.producer)];
      continue;
    }
    const Node old = graph.node(producer);
    auto attrs = std::get<Attrs>(old.attributes);
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
      replacements[graph.value(producer.node, output)] = graph.value(fused.node, output);
    }
    ++report.matched;
  }
  graph.replace(replacements);
  return report;
}

}  // namespace resnet
