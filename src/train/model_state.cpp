#include "train/model_state.h"

#include <set>
#include <string_view>

#include "base/rng.h"

namespace resnet {

std::vector<StateSpec> model_states(const ModelSpec& model, const ModelOptions& options, DType dtype) {
  Graph graph;
  ModelBuilder builder{graph, dtype, false, {}};
  Shape images = model.input;
  const Value x = graph.input("images", {dtype, Shape{1, images[0], images[1], images[2]}});
  build_model(model, Scope(builder), x, options);
  std::vector<StateSpec> states;
  for (const auto& [name, id] : graph.leaves()) {
    const Node& node = graph.node(id);
    if (node.kind == NodeKind::state) states.push_back({name, node.outputs[0], node.initializer, node.trainable});
  }
  return states;
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

void require_fit(const SafetensorsFile& file, const std::vector<StateSpec>& states) {
  std::vector<std::string> missing, unexpected, misshaped;
  std::set<std::string_view> known;
  for (const StateSpec& state : states) {
    known.insert(state.name);
    const auto found = file.entries().find(state.name);
    if (found == file.entries().end()) {
      missing.push_back(state.name);
      continue;
    }
    const SafetensorsEntry& entry = found->second;
    if (entry.shape != state.type.shape) {
      misshaped.push_back(fmt::format("{} ({}, expected {})", state.name, entry.shape.str(), state.type.shape.str()));
    } else if (entry.dtype != DType::f32 && entry.dtype != DType::f64) {
      misshaped.push_back(fmt::format("{} ({}, expected floats)", state.name, entry.stored_dtype));
    }
  }
  for (const auto& [name, entry] : file.entries()) {
    if (!known.contains(name) && !name.ends_with("num_batches_tracked")) unexpected.push_back(escape_control(name));
  }
  if (!missing.empty() || !unexpected.empty() || !misshaped.empty()) {
    throw UserError(ExitCode::bad_data, "{}: the tensors do not fit the model:{}{}{} check --model and the class count",
                    file.path(), first_ten("missing", missing), first_ten("unexpected", unexpected),
                    first_ten("misshaped", misshaped));
  }
}

std::map<std::string, Tensor> match_weights(const SafetensorsFile& file, const std::vector<StateSpec>& states) {
  require_fit(file, states);
  std::vector<std::string> names;
  for (const StateSpec& state : states) names.push_back(state.name);
  std::map<std::string, Tensor> values = file.load_all(names);
  for (const StateSpec& state : states) {
    Tensor& value = values.at(state.name);
    if (value.dtype() != state.type.dtype) value = convert(value, state.type.dtype);
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
