#include "train/model_state.h"

#include <algorithm>
#include <set>
#include <string_view>

#include "base/rng.h"
#include "ops/conv2d.h"
#include "ops/linear.h"
#include "ops/reshape.h"
#include "train/quantized_model.h"

namespace resnet {

namespace {

/// The forward graph over one image. Returns the logits.
Value build(Graph& graph, const ModelSpec& model, const ModelOptions& options, DType dtype) {
  ModelBuilder builder{graph, dtype, false, {}};
  const Shape& images = model.input;
  const Value x = graph.input("images", {dtype, Shape{1, images[0], images[1], images[2]}});
  return build_model(model, Scope(builder), x, options);
}

}  // namespace

std::vector<StateSpec> model_states(const ModelSpec& model, const ModelOptions& options, DType dtype) {
  Graph graph;
  build(graph, model, options, dtype);
  std::vector<StateSpec> states;
  for (const auto& [name, id] : graph.leaves()) {
    const Node& node = graph.node(id);
    if (node.kind == NodeKind::state) states.push_back({name, node.outputs[0], node.initializer, node.trainable});
  }
  return states;
}

std::vector<std::string> head_states(const ModelSpec& model, const ModelOptions& options) {
  Graph graph;
  Value value = build(graph, model, options, DType::f32);
  while (graph.node(value).op == &kReshape) value = graph.node(value).inputs[0];
  const Node& head = graph.node(value);
  std::vector<std::string> names;
  if (head.op != &kLinear && head.op != &kConv2d) return names;
  for (const Value& input : head.inputs) {
    if (graph.node(input).kind == NodeKind::state) names.push_back(graph.node(input).name);
  }
  return names;
}

Tensor initial_value(const StateSpec& state, uint64_t seed) {
  Tensor tensor(state.type);
  Rng rng(hash_combine(hash_combine(seed, hash_text("initial weights")), hash_text(state.name)));
  with_float(state.type.dtype, [&](auto tag) {
    using T = decltype(tag);
    for (T& value : tensor.as<T>()) {
      switch (state.initializer.kind) {
        case Initializer::Kind::constant: value = static_cast<T>(state.initializer.scale); break;
        case Initializer::Kind::uniform:
          value = static_cast<T>(rng.uniform(-state.initializer.scale, state.initializer.scale));
          break;
        case Initializer::Kind::normal: value = static_cast<T>(rng.normal() * state.initializer.scale); break;
      }
    }
  });
  return tensor;
}

namespace {

/// What an unexpected name has before a missing one, if that explains every missing one: " all missing are there after
/// 'net.': convert --strip-prefix net.;". Empty otherwise.
std::string prefix_hint(const std::vector<std::string>& missing, const std::vector<std::string>& unexpected) {
  if (missing.empty()) return "";
  const std::set<std::string_view> there(unexpected.begin(), unexpected.end());
  for (const std::string& name : unexpected) {
    if (!name.ends_with("." + missing.front())) continue;
    const std::string prefix = name.substr(0, name.size() - missing.front().size());
    const bool all = std::all_of(missing.begin(), missing.end(),
                                 [&](const std::string& other) { return there.contains(prefix + other); });
    if (all) return fmt::format(" all missing are there after '{0}': resnet convert with --strip-prefix {0};", prefix);
  }
  return "";
}

/// "missing: a, b, c and 7 more"; empty when there are none.
std::string first_ten(const char* what, const std::vector<std::string>& names) {
  if (names.empty()) return "";
  constexpr size_t kShown = 10;
  std::string text = fmt::format(" {} {}: ", names.size(), what);
  for (size_t i = 0; i < names.size() && i < kShown; ++i) text += (i ? ", " : "") + names[i];
  if (names.size() > kShown) text += fmt::format(" and {} more", names.size() - kShown);
  return text + ";";
}

}  // namespace

void require_fit(const WeightsFile& file, const std::vector<StateSpec>& states,
                 const std::vector<std::string>& left_out) {
  require_not_quantized(file);
  std::vector<std::string> missing, unexpected, misshaped;
  std::set<std::string_view> known;
  for (const StateSpec& state : states) {
    known.insert(state.name);
    if (std::find(left_out.begin(), left_out.end(), state.name) != left_out.end()) continue;
    const auto found = file.entries().find(state.name);
    if (found == file.entries().end()) {
      missing.push_back(state.name);
      continue;
    }
    const WeightsEntry& entry = found->second;
    if (entry.shape != state.type.shape) {
      misshaped.push_back(fmt::format("{} ({}, expected {})", state.name, entry.shape.str(), state.type.shape.str()));
    } else if (entry.dtype() != DType::f32 && entry.dtype() != DType::f64) {
      misshaped.push_back(fmt::format("{} ({}, expected floats)", state.name, entry.stored->name));
    }
  }
  for (const auto& [name, entry] : file.entries()) {
    if (!known.contains(name) && !name.ends_with("num_batches_tracked")) unexpected.push_back(escape_control(name));
  }
  if (!missing.empty() || !unexpected.empty() || !misshaped.empty()) {
    throw UserError(ExitCode::bad_data,
                    "{}: the tensors do not fit the model:{}{}{}{} check the architecture (train: --model) and the "
                    "class count (train: --reset-head "
                    "replaces a classifier of other classes)",
                    file.path(), first_ten("missing", missing), first_ten("unexpected", unexpected),
                    first_ten("misshaped", misshaped), prefix_hint(missing, unexpected));
  }
}

std::map<std::string, Tensor> match_weights(const WeightsFile& file, const std::vector<StateSpec>& states,
                                            const std::vector<std::string>& left_out) {
  require_fit(file, states, left_out);
  std::vector<std::string> names;
  for (const StateSpec& state : states) {
    if (std::find(left_out.begin(), left_out.end(), state.name) == left_out.end()) names.push_back(state.name);
  }
  std::map<std::string, Tensor> values = file.load_all(names);
  for (const StateSpec& state : states) {
    const auto found = values.find(state.name);
    if (found != values.end() && found->second.dtype() != state.type.dtype)
      found->second = convert(found->second, state.type.dtype);
  }
  return values;
}

std::map<std::string, Tensor> read_states(const Session& session, const std::vector<StateSpec>& states) {
  std::map<std::string, Tensor> values;
  for (const StateSpec& state : states) values[state.name] = session.read_state(state.name);
  return values;
}

void write_states(Session& session, const std::map<std::string, Tensor>& values) {
  for (const auto& [name, tensor] : values) session.write_state(name, tensor);
}

}  // namespace resnet
