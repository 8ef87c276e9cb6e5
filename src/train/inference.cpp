#include "train/inference.h"

#include <cmath>
#include <set>

#include "train/quantized_model.h"

namespace resnet {

std::unique_ptr<Graph> make_inference_graph(const ModelSpec& model, const InferenceOptions& options) {
  auto graph = std::make_unique<Graph>();
  const Value images = graph->input("images", {options.dtype, options.images});
  ModelBuilder builder{*graph, options.dtype, false, {}};
  graph->set_output("logits", build_model(model, Scope(builder), images, options.model));
  return graph;
}

InferenceProgram::InferenceProgram(Session& session, const ModelSpec& model, const InferenceOptions& options,
                                   const PlanProgress& progress)
    : session_(session), images_(options.images), dtype_(options.dtype), quantization_(options.quantization) {
  auto graph = make_inference_graph(model, options);
  folded_ = run_inference_passes(*graph, options.passes);
  if (quantization_) {
    QuantizedGraph quantized = quantize_graph(*graph, quantization_->layers);
    graph = std::move(quantized.graph);
    derived_ = std::move(quantized.derived);
    folded_.clear();
  }
  // The folded states follow from the model's own, which the graph no longer reads.
  for (const auto& [name, id] : graph->leaves()) {
    if (options.keep_model_states && !quantization_ && graph->node(id).kind == NodeKind::state)
      session.add_state(name, graph->node(id).outputs[0]);
  }
  program_ = &session.compile(std::move(graph), progress);
}

void InferenceProgram::refresh() {
  check(!quantization_, "InferenceProgram::refresh: a quantised model has no states to follow");
  auto read = [&](const std::string& name) { return session_.read_state(name); };
  for (const FoldedConvolution& f : folded_) {
    write_folded(f, {.weight = read(f.weight),
                     .bias = f.bias.empty() ? Tensor() : read(f.bias),
                     .gamma = read(f.gamma),
                     .beta = read(f.beta),
                     .mean = read(f.mean),
                     .variance = read(f.variance)});
  }
}

void InferenceProgram::load(std::map<std::string, Tensor> values) {
  // Of a folded convolution nothing but the result is needed: its memory goes back before the next one's is taken.
  auto take = [&](const std::string& name) {
    const auto found = values.find(name);
    check(found != values.end(), "InferenceProgram::load: a state without a value");
    return std::move(values.extract(found).mapped());
  };
  std::set<std::string> written;
  for (const DerivedState& state : derived_) {
    session_.write_state(state.state, derive(state, values, *quantization_));
    written.insert(state.state);
  }
  for (const FoldedConvolution& f : folded_) {
    write_folded(f, {.weight = take(f.weight),
                     .bias = f.bias.empty() ? Tensor() : take(f.bias),
                     .gamma = take(f.gamma),
                     .beta = take(f.beta),
                     .mean = take(f.mean),
                     .variance = take(f.variance)});
    written.insert({f.folded_weight, f.folded_bias});
  }
  for (const int state : program_->plan().states) {
    const std::string& name = program_->plan().buffers[static_cast<size_t>(state)].state;
    if (!written.contains(name)) session_.write_state(name, take(name));
  }
}

void InferenceProgram::write_folded(const FoldedConvolution& f, Unfolded from) {
  const auto channels = static_cast<size_t>(from.weight.shape()[0]);
  const size_t per_channel = static_cast<size_t>(from.weight.elements()) / channels;
  Tensor bias(from.beta.type());
  with_float(from.weight.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const auto number = [](const Tensor& tensor, size_t k) { return static_cast<double>(tensor.as<T>()[k]); };
    T* weight = from.weight.as<T>().data();
    for (size_t k = 0; k < channels; ++k) {
      const double scale = number(from.gamma, k) / std::sqrt(number(from.variance, k) + f.epsilon);
      for (size_t i = 0; i < per_channel; ++i, ++weight) *weight = static_cast<T>(static_cast<double>(*weight) * scale);
      const double before = f.bias.empty() ? 0 : number(from.bias, k);
      bias.as<T>()[k] = static_cast<T>((before - number(from.mean, k)) * scale + number(from.beta, k));
    }
  });
  session_.write_state(f.folded_weight, from.weight);
  session_.write_state(f.folded_bias, bias);
}

Tensor InferenceProgram::run(const Tensor& images) {
  const int64_t n = images.shape()[0];
  if (n == images_[0]) {
    program_->set_input("images", images);
  } else {
    check(n >= 1 && n < images_[0], "InferenceProgram::run: more images than the batch");
    if (partial_.shape() != images_) partial_ = Tensor(images.dtype(), images_);  // a default tensor is a scalar
    std::memcpy(partial_.data(), images.data(), images.size_bytes());
    program_->set_input("images", partial_);
  }
  program_->run();
  const Tensor all = program_->output("logits");
  if (n == images_[0]) return all;
  Tensor logits(all.dtype(), Shape{n, all.shape()[1]});
  std::memcpy(logits.data(), all.data(), logits.size_bytes());
  return logits;
}

}  // namespace resnet
