#pragma once
// What every pass answers: how often it matched, and what it left alone and why.

#include <map>
#include <string>

#include "graph/graph.h"

namespace resnet {

struct PassReport {
  int matched = 0;
  std::map<std::string, int> skipped;  ///< reason -> count
  bool changed() const { return matched > 0; }
};

/// How many times each live value is read; outputs and assignments count as readers.
std::map<Value, int> count_readers(const Graph& graph);

/// True when the only reader of `value` is one node's input.
inline bool has_one_reader(const std::map<Value, int>& readers, Value value) {
  const auto found = readers.find(value);
  return found != readers.end() && found->second == 1;
}

}  // namespace resnet
