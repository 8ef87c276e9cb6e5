#pragma once
// The symbolic program: nodes in SSA form, leaves (inputs fed at each run, states that persist), named
// outputs, and assignments that say what each state becomes after a run. No arithmetic lives here.

#include <map>
#include <span>
#include <string>
#include <vector>

#include "graph/op.h"

namespace resnet {

/// How a state starts, before weights are loaded. Values are drawn from hash(seed, state name).
struct Initializer {
  enum class Kind { constant, uniform, normal } kind = Kind::constant;
  double scale = 0;  ///< the constant, the uniform bound (U(-scale, scale)), or the standard deviation
  bool operator==(const Initializer&) const = default;
};

enum class NodeKind { input, state, op };

struct Node {
  NodeKind kind = NodeKind::op;
  const OpDef* op = nullptr;  ///< null for leaves
  Attributes attributes;
  std::vector<Value> inputs;
  std::vector<TensorType> outputs;
  std::string name;  ///< the layer's path, or the leaf's name; may be empty
  Initializer initializer;
  bool trainable = false;
};

class Graph {
 public:
  Graph() = default;
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  /// A tensor fed at each run. Throws InternalError when the name is taken.
  Value input(const std::string& name, TensorType type);
  /// A tensor that persists between runs (weights, statistics, momenta). Asking again for the same
  /// name and type returns the same value; another type throws UserError.
  Value state(const std::string& name, TensorType type, Initializer initializer, bool trainable);
  /// Adds a node; its output types come from the op's shape rule. Returns output 0.
  Value add(const OpDef& op, std::vector<Value> inputs, Attributes attributes = NoAttrs{}, std::string name = {});

  void set_output(const std::string& name, Value value);
  /// After a run, `state` holds `value`.
  void assign(Value state, Value value);

  /// Redirects every use (inputs, outputs, assignments) of each key to its value, following chains.
  void replace(const std::map<Value, Value>& replacements);

  size_t size() const { return nodes_.size(); }
  const Node& node(int32_t id) const { return nodes_[static_cast<size_t>(id)]; }
  const Node& node(Value v) const { return node(v.node); }
  Value value(int32_t id, int32_t output = 0) { return {this, id, output}; }
  const std::map<std::string, Value>& outputs() const { return outputs_; }
  const std::map<Value, Value>& assignments() const { return assignments_; }
  const std::map<std::string, int32_t>& leaves() const { return leaves_; }

  /// Everything the outputs and assignments need, inputs before users. The order follows from names
  /// and topology alone, never from the order of creation.
  std::vector<int32_t> live_nodes() const;
  /// The same for any roots.
  std::vector<int32_t> ordered(std::span<const int32_t> roots) const;

 private:
  int32_t push(Node node);

  std::vector<Node> nodes_;
  std::map<std::string, Value> outputs_;
  std::map<Value, Value> assignments_;
  std::map<std::string, int32_t> leaves_;
};

/// What a gradient rule sees: the node it differentiates and the cotangents of its outputs.
struct GradContext {
  Graph& graph;
  Node node;  ///< a copy: adding nodes moves the originals
  int32_t id;
  std::vector<Value> cotangents;  ///< one per output; none where nothing flows back
  std::vector<bool> needed;       ///< one per input

  Value input(int i) const { return node.inputs[static_cast<size_t>(i)]; }
  Value output(int i) const { return {&graph, id, i}; }
  Value dy() const { return cotangents[0]; }
  bool needs(int i) const { return needed[static_cast<size_t>(i)]; }
  template <class T>
  const T& attributes() const {
    return std::get<T>(node.attributes);
  }
  /// Adds a gradient node named after the forward node.
  Value add(const OpDef& op, std::vector<Value> inputs, Attributes attrs = NoAttrs{}) {
    return graph.add(op, std::move(inputs), std::move(attrs), node.name.empty() ? "" : "grad/" + node.name);
  }
};

/// Checks that live nodes form a DAG whose types agree with each op's shape rule and that assignments
/// keep the state's type. Throws InternalError naming the node.
void verify(const Graph& graph);

/// One line a live node: `%3 = conv2d(%1, %2) stride=2 -> f32[4x64x24x24]  # layer1.0.conv1`.
std::string print(const Graph& graph);

}  // namespace resnet
