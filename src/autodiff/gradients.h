#pragma once
// Reverse-mode differentiation of a graph: the gradients are ordinary nodes of the same graph.

#include <span>
#include <utility>
#include <vector>

#include "graph/graph.h"

namespace resnet {

/// For each value of `wrt`, the sum over the pairs of d(output)/d(value) contracted with the output's cotangent; a fill
/// of zeros where nothing flows. Only nodes between `wrt` and the outputs are visited, in time linear in their number.
/// The terms of a sum are added in graph order (Graph::ordered), so results do not depend on the order of creation.
/// Throws InternalError for an op without a gradient on the way, or a cotangent whose type is not its output's.
std::vector<Value> gradients(Graph& graph, std::span<const std::pair<Value, Value>> outputs_and_cotangents,
                             std::span<const Value> wrt);

/// Gradients of one output, weighted by ones (of a scalar loss: its gradient).
std::vector<Value> gradients(Value loss, std::span<const Value> wrt);

}  // namespace resnet
