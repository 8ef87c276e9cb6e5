#include "passes/pass.h"

namespace resnet {

std::map<Value, int> count_readers(const Graph& graph) {
  std::map<Value, int> readers;
  for (int32_t id : graph.live_nodes()) {
    for (const Value& input : graph.node(id).inputs) ++readers[input];
  }
  for (const auto& [name, value] : graph.outputs()) ++readers[value];
  for (const auto& [state, value] : graph.assignments()) ++readers[value];
  return readers;
}

}  // namespace resnet
