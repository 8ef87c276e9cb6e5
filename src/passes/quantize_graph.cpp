#include "passes/quantize_graph.h"

#include <algorithm>

#include "ops/conv2d.h"
#include "ops/global_avg_pool.h"
#include "ops/max_pool.h"
#include "ops/quantize.h"
#include "ops/quantized_conv2d.h"
#include "ops/quantized_pool.h"
#include "ops/relu.h"

namespace resnet {
namespace {

/// Whether the value is made from a global pooling by convolutions and activations alone.
bool is_pooled(const Graph& graph, Value value) {
  for (const Node* node = &graph.node(value); node->kind == NodeKind::op; node = &graph.node(node->inputs[0])) {
    if (node->op == &kGlobalAvgPool) return true;
    if (node->op != &kConv2d && node->op != &kRelu) return false;
  }
  return false;
}

bool quantizable(const Graph& graph, const Node& node) {
  if (node.op != &kConv2d || node.outputs[0].dtype != DType::f32) return false;
  const auto& attrs = std::get<Conv2dAttrs>(node.attributes);
  for (size_t i = 1; i < size_t{2} + attrs.bias; ++i) {
    if (graph.node(node.inputs[i]).kind != NodeKind::state) return false;
  }
  // Pixels have a zero for each channel, which weights of several groups could not tell apart.
  if (attrs.groups > 1 && graph.node(node.inputs[0]).kind == NodeKind::input) return false;
  const Shape& w = node.inputs[1].shape();
  return w[1] * w[2] * w[3] <= kMostQuantizedTaps && !is_pooled(graph, node.inputs[0]);
}

/// The residual of a convolution with one.
Value residual_of(const Node& conv) { return conv.inputs.back(); }

class Quantizer {
 public:
  Quantizer(const Graph& from, const std::set<std::string>& layers, QuantizeMode mode)
      : from_(from), layers_(layers), isolated_(mode == QuantizeMode::isolated), names_(value_names(from)) {
    result_.graph = std::make_unique<Graph>();
  }

  QuantizedGraph run() {
    for (const int32_t id : from_.live_nodes()) {
      const Node& node = from_.node(id);
      if (node.kind == NodeKind::input) plain_[value(id)] = to().input(node.name, node.outputs[0]);
      if (node.kind != NodeKind::op) continue;
      if (is_quantized_layer(id)) {
        convolve(id);
      } else if (isolated_ || !pool(id)) {
        copy(id);
      }
    }
    if (!isolated_) {
      for (const auto& [name, output] : from_.outputs()) to().set_output(name, plain(output));
    }
    verify(to());
    return std::move(result_);
  }

 private:
  struct Quantized {
    Value value;
    ActivationScale scale;
  };

  Graph& to() { return *result_.graph; }
  Value value(int32_t id, int32_t output = 0) const { return {const_cast<Graph*>(&from_), id, output}; }
  bool is_quantized_layer(int32_t id) const { return from_.node(id).op == &kConv2d && layers_.contains(names_.at(id)); }

  // --- f32 ---

  /// A value in f32.
  Value plain(Value old) {
    if (const auto found = plain_.find(old); found != plain_.end()) return found->second;
    const Node& node = from_.node(old);
    if (node.kind == NodeKind::state) return plain_[old] = tensor_state(node.name, node.outputs[0]);
    const auto found = quantized_.find({old, false});
    check(found != quantized_.end(), "quantize_graph: a value that nothing has made");
    const Quantized& q = found->second;
    const TensorType one{DType::f32, {1}};
    const std::string& name = names_.at(old.node);
    const Value scale = derived_scale(DerivedState::Kind::scale, name + "@scale", one, q.scale);
    const Value zero = derived_scale(DerivedState::Kind::zero, name + "@zero", one, q.scale);
    return plain_[old] = to().add(kDequantize, {q.value, scale, zero}, NoAttrs{}, name);
  }

  void copy(int32_t id) {
    const Node& node = from_.node(id);
    std::vector<Value> inputs;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const bool is_state = from_.node(node.inputs[i]).kind == NodeKind::state;
      // A folded convolution's states have names of their own; the file knows the layer's.
      inputs.push_back(node.op == &kConv2d && is_state
                           ? tensor_state(names_.at(id) + (i == 1 ? ".weight" : ".bias"), node.inputs[i].type())
                           : plain(node.inputs[i]));
    }
    const Value made = to().add(*node.op, inputs, node.attributes, node.name);
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      const auto output = static_cast<int32_t>(i);
      plain_[value(id, output)] = {&to(), made.node, output};
    }
  }

  Value tensor_state(const std::string& name, const TensorType& type) {
    result_.tensors[name] = type;
    return to().state(name, type, {}, false);
  }

  Value derived(DerivedState state) {
    const Value made = to().state(state.state, state.type, {}, false);
    const auto known = std::find_if(result_.derived.begin(), result_.derived.end(),
                                    [&](const DerivedState& other) { return other.state == state.state; });
    if (known == result_.derived.end()) result_.derived.push_back(std::move(state));
    return made;
  }

  /// A state that follows from a scale alone.
  Value derived_scale(DerivedState::Kind kind, const std::string& name, const TensorType& type,
                      const ActivationScale& of) {
    DerivedState state;
    state.kind = kind;
    state.state = name;
    state.type = type;
    state.of = of;
    return derived(std::move(state));
  }

  // --- 8 bits ---

  /// What an 8-bit form of the value has for a scale in the whole graph.
  ActivationScale scale_of(Value old) const {
    const Node& node = from_.node(old);
    if (node.kind == NodeKind::input) return {ActivationScale::Kind::pixels, node.name, DType::u8};
    if (old.output == 0 && is_quantized_layer(old.node)) {
      const bool relu = std::get<Conv2dAttrs>(node.attributes).relu;
      return {ActivationScale::Kind::output, names_.at(old.node), relu ? DType::u8 : DType::i8};
    }
    if (node.op == &kMaxPool && old.output == 0 && stays_quantized(node.inputs[0])) return scale_of(node.inputs[0]);
    return rounded_scale(old);
  }
  ActivationScale rounded_scale(Value old) const {
    return {ActivationScale::Kind::value, names_.at(old.node), DType::u8};
  }
  /// Whether the whole graph has the value in 8 bits without rounding it from f32.
  bool stays_quantized(Value old) const {
    const Node& node = from_.node(old);
    return (old.output == 0 && node.kind == NodeKind::op) &&
           (is_quantized_layer(old.node) || (node.op == &kMaxPool && stays_quantized(node.inputs[0])));
  }

  /// A value in 8 bits. `as_pixels`: a convolution's input, which must be u8.
  Quantized quantized(Value old, bool as_pixels) {
    ActivationScale scale = scale_of(old);
    const bool again = as_pixels && scale.dtype != DType::u8;
    if (again) scale = rounded_scale(old);
    if (const auto found = quantized_.find({old, again}); found != quantized_.end()) return found->second;
    note(scale);
    const Value x = plain(old);
    const TensorType channels{DType::f32, {x.shape()[1]}};
    const std::string name = names_.at(old.node) + (again ? "@again" : "");
    const Value factor = derived_scale(DerivedState::Kind::factor, name + "@factor", channels, scale);
    const Value zeros = derived_scale(DerivedState::Kind::zeros, name + "@zeros", channels, scale);
    const Value made = to().add(kQuantize, {x, factor, zeros}, QuantizeAttrs{scale.dtype}, names_.at(old.node));
    return quantized_[{old, again}] = {made, scale};
  }

  /// The tensors of a scale.
  void note(const ActivationScale& scale) {
    switch (scale.kind) {
      case ActivationScale::Kind::output: result_.tensors[scale.name + ".output_scale"] = {DType::f32, {}}; break;
      case ActivationScale::Kind::value:
        result_.tensors[scale.name + ".value_scale"] = {DType::f32, {}};
        result_.tensors[scale.name + ".value_zero"] = {DType::u8, {}};
        break;
      case ActivationScale::Kind::pixels: break;
    }
  }

  void convolve(int32_t id) {
    const Node& node = from_.node(id);
    const std::string& name = names_.at(id);
    QuantizedConv2dAttrs attrs{.conv = std::get<Conv2dAttrs>(node.attributes)};
    attrs.conv.bias = false;
    const ActivationScale output = scale_of(value(id));
    attrs.output = output.dtype;
    note(output);
    const Shape& w = node.inputs[1].shape();
    const TensorType filters{DType::f32, {w[0]}};
    result_.tensors[name + ".weight_scale"] = filters;
    result_.tensors[name + ".bias"] = filters;
    const Quantized x = quantized(node.inputs[0], true);
    DerivedState state;
    state.layer = name;
    state.of = x.scale;
    std::optional<Quantized> residual;
    if (attrs.conv.residual) {
      residual = quantized(residual_of(node), false);
      state.residual = residual->scale;
    }
    const auto of_layer = [&](DerivedState::Kind kind, const char* what, TensorType type) {
      state.kind = kind;
      state.state = name + what;
      state.type = std::move(type);
      return derived(state);
    };
    const Value weight = quantized_weight(name, w);
    std::vector<Value> inputs = {x.value, weight, of_layer(DerivedState::Kind::multiplier, "@multiplier", filters),
                                 of_layer(DerivedState::Kind::offset, "@offset", filters),
                                 of_layer(DerivedState::Kind::padding, "@padding", {DType::u8, {x.value.shape()[1]}})};
    if (residual) {
      inputs.push_back(residual->value);
      inputs.push_back(of_layer(DerivedState::Kind::residual_multiplier, "@residual", {DType::f32, {1}}));
    }
    const Quantized made{to().add(kQuantizedConv2d, inputs, attrs, node.name), output};
    if (!isolated_) {
      quantized_[{value(id), false}] = made;
      return;
    }
    // Beside it in f32, from weights whose names the quantised ones have taken.
    std::vector<Value> f32_inputs = {plain(node.inputs[0])};
    for (size_t i = 1; i < node.inputs.size(); ++i) f32_inputs.push_back(plain(node.inputs[i]));
    plain_[value(id)] = to().add(*node.op, f32_inputs, node.attributes, node.name);
    const TensorType one{DType::f32, {1}};
    const Value scale = derived_scale(DerivedState::Kind::scale, name + "@result_scale", one, output);
    const Value zero = derived_scale(DerivedState::Kind::zero, name + "@result_zero", one, output);
    to().set_output("f32:" + name, plain_.at(value(id)));
    to().set_output("int8:" + name, to().add(kDequantize, {made.value, scale, zero}));
  }

  Value quantized_weight(const std::string& layer, const Shape& shape) {
    const std::string name = layer + ".weight";
    result_.tensors[name] = {DType::i8, shape};
    return to().state(isolated_ ? name + "@int8" : name, {DType::i8, shape}, {}, false);
  }

  /// A pooling whose input stays in 8 bits. False: it is another op, or its input does not.
  bool pool(int32_t id) {
    const Node& node = from_.node(id);
    if (node.op != &kMaxPool && node.op != &kGlobalAvgPool) return false;
    const auto found = quantized_.find({node.inputs[0], false});
    if (found == quantized_.end() || found->second.scale.kind != ActivationScale::Kind::output) return false;
    const Quantized x = found->second;
    if (node.op == &kMaxPool) {
      if (std::get<PoolAttrs>(node.attributes).ceil_mode) return false;
      quantized_[{value(id), false}] = {to().add(kQuantizedMaxPool, {x.value}, node.attributes, node.name), x.scale};
      return true;
    }
    const TensorType one{DType::f32, {1}};
    const Value scale = derived_scale(DerivedState::Kind::scale, names_.at(id) + "@scale", one, x.scale);
    plain_[value(id)] = to().add(kQuantizedGlobalAvgPool, {x.value, scale}, NoAttrs{}, node.name);
    return true;
  }

  const Graph& from_;
  const std::set<std::string>& layers_;
  bool isolated_;
  std::map<int32_t, std::string> names_;
  QuantizedGraph result_;
  std::map<Value, Value> plain_;  ///< old value -> new, in f32
  /// (old value, rounded a second time to u8 because its own form is i8) -> new.
  std::map<std::pair<Value, bool>, Quantized> quantized_;
};

}  // namespace

std::map<int32_t, std::string> value_names(const Graph& graph) {
  std::map<int32_t, std::string> names;
  std::set<std::string> taken;
  for (const int32_t id : graph.live_nodes()) {
    const Node& node = graph.node(id);
    std::string name = node.name;
    if (name.empty())
      name = fmt::format("{}@{}", node.op->name, node.inputs.empty() ? "" : names.at(node.inputs[0].node));
    std::string unique = name;
    for (int i = 2; !taken.insert(unique).second; ++i) unique = fmt::format("{}#{}", name, i);
    names[id] = unique;
  }
  return names;
}

std::vector<std::string> quantizable_layers(const Graph& graph) {
  const std::map<int32_t, std::string> names = value_names(graph);
  std::vector<std::string> layers;
  for (const int32_t id : graph.live_nodes()) {
    if (quantizable(graph, graph.node(id))) layers.push_back(names.at(id));
  }
  return layers;
}

QuantizedGraph quantize_graph(const Graph& from, const std::set<std::string>& layers, QuantizeMode mode) {
  const std::vector<std::string> known = quantizable_layers(from);
  for (const std::string& layer : layers) {
    if (std::find(known.begin(), known.end(), layer) != known.end()) continue;
    throw UserError(ExitCode::bad_data, "quantization: layer '{}' is no convolution that can be quantised; nearest: {}",
                    escape_control(layer), nearest_names(layer, known));
  }
  return Quantizer(from, layers, mode).run();
}

std::map<std::string, Value> calibrated_values(Graph& graph) {
  const std::map<int32_t, std::string> names = value_names(graph);
  std::map<std::string, Value> values;
  for (const auto& [id, name] : names) {
    const Node& node = graph.node(id);
    if (node.kind != NodeKind::op || !quantizable(graph, node)) continue;
    std::vector<Value> needed = {graph.value(id), node.inputs[0]};
    if (std::get<Conv2dAttrs>(node.attributes).residual) needed.push_back(residual_of(node));
    for (const Value& value : needed) values[names.at(value.node)] = value;
  }
  return values;
}

}  // namespace resnet
