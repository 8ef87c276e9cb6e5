#include "graph/graph.h"

#include <algorithm>

#include "base/error.h"
#include "base/rng.h"

namespace resnet {

const TensorType& Value::type() const { return graph->node(node).outputs[static_cast<size_t>(output)]; }

std::vector<Value> no_gradient(GradContext& context) {
  throw InternalError(fmt::format("op '{}' has no gradient", context.node.op->name));
}

Cost elementwise_cost(std::span<const TensorType> in, std::span<const TensorType> out, double flops_per_output) {
  Cost cost;
  for (const TensorType& type : in)
    cost.bytes += static_cast<double>(type.shape.elements()) * static_cast<double>(size_of(type.dtype));
  for (const TensorType& type : out)
    cost.bytes += static_cast<double>(type.shape.elements()) * static_cast<double>(size_of(type.dtype));
  if (!out.empty()) cost.flops = flops_per_output * static_cast<double>(out[0].shape.elements());
  return cost;
}

int32_t Graph::push(Node node) {
  nodes_.push_back(std::move(node));
  return static_cast<int32_t>(nodes_.size() - 1);
}

Value Graph::input(const std::string& name, TensorType type) {
  check(!leaves_.contains(name), "Graph::input: the name is taken");
  Node node;
  node.kind = NodeKind::input;
  node.outputs = {std::move(type)};
  node.name = name;
  return {this, leaves_[name] = push(std::move(node)), 0};
}

Value Graph::state(const std::string& name, TensorType type, Initializer initializer, bool trainable) {
  if (auto found = leaves_.find(name); found != leaves_.end()) {
    const Value value{this, found->second, 0};
    if (value.type() != type || node(value).kind != NodeKind::state) {
      throw UserError("parameter '{}': asked for as {} and as {}; a name stands for one tensor", name,
                      value.type().str(), type.str());
    }
    return value;
  }
  Node node;
  node.kind = NodeKind::state;
  node.outputs = {std::move(type)};
  node.name = name;
  node.initializer = initializer;
  node.trainable = trainable;
  return {this, leaves_[name] = push(std::move(node)), 0};
}

Value Graph::add(const OpDef& op, std::vector<Value> inputs, Attributes attributes, std::string name) {
  std::vector<TensorType> in;
  for (const Value& value : inputs) {
    check(value.graph == this, "Graph::add: an input belongs to another graph or is none");
    in.push_back(value.type());
  }
  Node node;
  node.op = &op;
  node.outputs = op.infer(InferCall{attributes, in, name});
  node.attributes = std::move(attributes);
  node.inputs = std::move(inputs);
  node.name = std::move(name);
  return {this, push(std::move(node)), 0};
}

void Graph::set_output(const std::string& name, Value value) { outputs_[name] = value; }

void Graph::assign(Value state, Value value) {
  check(node(state).kind == NodeKind::state, "Graph::assign: the target is not a state");
  check(state.type() == value.type(), "Graph::assign: type differs from the state's");
  assignments_[state] = value;
}

void Graph::replace(const std::map<Value, Value>& replacements) {
  auto resolve = [&](Value value) {
    size_t steps = 0;
    for (auto found = replacements.find(value); found != replacements.end(); found = replacements.find(value)) {
      check(steps++ < replacements.size(), "Graph::replace: the replacements form a cycle");
      value = found->second;
    }
    return value;
  };
  for (Node& node : nodes_) {
    for (Value& input : node.inputs) input = resolve(input);
  }
  for (auto& [name, value] : outputs_) value = resolve(value);
  for (auto& [state, value] : assignments_) value = resolve(value);
}

std::vector<int32_t> Graph::live_nodes() const {
  std::vector<int32_t> roots;
  for (const auto& [name, value] : outputs_) roots.push_back(value.node);
  // Ordered by name: the map's own order is by node id, which follows creation.
  std::map<std::string, std::pair<int32_t, int32_t>> assignments;
  for (const auto& [state, value] : assignments_) assignments[node(state).name] = {state.node, value.node};
  for (const auto& [name, ids] : assignments) roots.insert(roots.end(), {ids.first, ids.second});
  return ordered(roots);
}

std::vector<int32_t> Graph::ordered(std::span<const int32_t> roots) const {
  // Levels by longest path from the leaves; ties broken by a hash of what the node computes, so two
  // compilers that evaluate `a + b` in another order still get the same schedule.
  std::vector<int32_t> order;
  std::vector<char> seen(nodes_.size(), 0);  // 1 = entered, 2 = left
  auto visit = [&](int32_t root) {
    std::vector<std::pair<int32_t, size_t>> stack{{root, 0}};
    while (!stack.empty()) {
      const int32_t id = stack.back().first;
      const size_t next = stack.back().second;
      auto& state = seen[static_cast<size_t>(id)];
      if (state == 2) {
        stack.pop_back();
        continue;
      }
      state = 1;
      const auto& inputs = nodes_[static_cast<size_t>(id)].inputs;
      if (next < inputs.size()) {
        ++stack.back().second;
        const int32_t input = inputs[next].node;
        check(input >= 0 && static_cast<size_t>(input) < nodes_.size(),
              "graph: a node reads a value that does not exist");
        check(seen[static_cast<size_t>(input)] != 1, "graph: a node needs its own result (cycle)");
        if (seen[static_cast<size_t>(input)] == 0) stack.emplace_back(input, 0);
      } else {
        state = 2;
        order.push_back(id);
        stack.pop_back();
      }
    }
  };
  for (int32_t root : roots) {
    if (seen[static_cast<size_t>(root)] == 0) visit(root);
  }

  std::vector<int64_t> level(nodes_.size(), 0);
  std::vector<uint64_t> key(nodes_.size(), 0);
  for (int32_t id : order) {
    const Node& n = nodes_[static_cast<size_t>(id)];
    uint64_t hash = hash_combine(hash_text(n.op ? n.op->name : "leaf"), hash_text(n.name));
    hash = hash_combine(hash, hash_text(to_string(n.attributes)));
    int64_t deepest = 0;
    for (const Value& input : n.inputs) {
      deepest = std::max(deepest, level[static_cast<size_t>(input.node)] + 1);
      hash =
          hash_combine(hash, hash_combine(key[static_cast<size_t>(input.node)], static_cast<uint64_t>(input.output)));
    }
    level[static_cast<size_t>(id)] = deepest;
    key[static_cast<size_t>(id)] = hash;
  }
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    const auto ia = static_cast<size_t>(a);
    const auto ib = static_cast<size_t>(b);
    return std::tuple(level[ia], key[ia], a) < std::tuple(level[ib], key[ib], b);
  });
  return order;
}

void verify(const Graph& graph) {
  for (int32_t id : graph.live_nodes()) {
    const Node& node = graph.node(id);
    if (node.kind != NodeKind::op) continue;
    std::vector<TensorType> in;
    for (const Value& value : node.inputs) {
      const bool exists = value.graph == &graph && value.node >= 0 && static_cast<size_t>(value.node) < graph.size() &&
                          static_cast<size_t>(value.output) < graph.node(value).outputs.size();
      if (!exists)
        throw InternalError(fmt::format("verify: {} '{}' reads a value that does not exist", node.op->name, node.name));
      in.push_back(value.type());
    }
    std::vector<TensorType> outputs;
    try {
      outputs = node.op->infer(InferCall{node.attributes, in, node.name});
    } catch (const UserError& error) {  // the builder accepted it, so a rewrite broke it
      throw InternalError(fmt::format("verify: {}", error.what()));
    }
    if (outputs != node.outputs) {
      throw InternalError(
          fmt::format("verify: {} '{}' has outputs other than its shape rule says", node.op->name, node.name));
    }
  }
  for (const auto& [state, value] : graph.assignments()) {
    if (state.type() != value.type()) {
      throw InternalError(fmt::format("verify: state '{}' is assigned another type", graph.node(state).name));
    }
  }
}

std::string print(const Graph& graph) {
  std::string text;
  std::map<int32_t, size_t> number;
  auto reference = [&](Value value) {
    const Node& node = graph.node(value);
    if (node.kind != NodeKind::op) return "@" + node.name;
    return node.outputs.size() == 1 ? fmt::format("%{}", number.at(value.node))
                                    : fmt::format("%{}.{}", number.at(value.node), value.output);
  };
  for (int32_t id : graph.live_nodes()) {
    const Node& node = graph.node(id);
    std::vector<std::string> types;
    for (const TensorType& type : node.outputs) types.push_back(type.str());
    if (node.kind != NodeKind::op) {
      text += fmt::format("@{}: {} {}\n", node.name, node.kind == NodeKind::input ? "input" : "state", types[0]);
      continue;
    }
    const size_t index = number.size();
    number[id] = index;
    std::vector<std::string> inputs;
    for (const Value& input : node.inputs) inputs.push_back(reference(input));
    const std::string attributes = to_string(node.attributes);
    text += fmt::format("%{} = {}({}){}{} -> {}{}{}\n", index, node.op->name, fmt::join(inputs, ", "),
                        attributes.empty() ? "" : " ", attributes, fmt::join(types, ", "),
                        node.name.empty() ? "" : "  # ", node.name);
  }
  for (const auto& [name, value] : graph.outputs()) text += fmt::format("output {} = {}\n", name, reference(value));
  std::map<std::string, std::string> assigned;
  for (const auto& [state, value] : graph.assignments()) assigned[graph.node(state).name] = reference(value);
  for (const auto& [name, value] : assigned) text += fmt::format("@{} := {}\n", name, value);
  return text;
}

}  // namespace resnet
