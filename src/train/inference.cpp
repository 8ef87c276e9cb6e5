#include "train/inference.h"

#include <cmath>

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
    : session_(session), images_(options.images), dtype_(options.dtype) {
  auto graph = make_inference_graph(model, options);
  folded_ = run_inference_passes(*graph, options.passes);
  // The folded states follow from the model's own, which the graph no longer reads.
  for (const auto& [name, id] : graph->leaves()) {
    if (graph->node(id).kind == NodeKind::state) session.add_state(name, graph->node(id).outputs[0]);
  }
  program_ = &session.compile(std::move(graph), progress);
}

void InferenceProgram::refresh() {
  for (const FoldedConvolution& f : folded_) {
    const DType dtype = session_.state_type(f.folded_weight).dtype;
    auto read = [&](const std::string& name) { return convert(session_.read_state(name), DType::f64); };
    Tensor weight = read(f.weight);
    const Tensor gamma = read(f.gamma), beta = read(f.beta), mean = read(f.mean), variance = read(f.variance);
    Tensor bias = f.bias.empty() ? Tensor(DType::f64, beta.shape()) : read(f.bias);
    const auto channels = static_cast<size_t>(weight.shape()[0]);
    const size_t per_channel = static_cast<size_t>(weight.elements()) / channels;
    for (size_t k = 0; k < channels; ++k) {
      const double scale = gamma.as<double>()[k] / std::sqrt(variance.as<double>()[k] + f.epsilon);
      for (size_t i = 0; i < per_channel; ++i) weight.as<double>()[k * per_channel + i] *= scale;
      double& b = bias.as<double>()[k];
      b = (b - mean.as<double>()[k]) * scale + beta.as<double>()[k];
    }
    session_.write_state(f.folded_weight, convert(weight, dtype));
    session_.write_state(f.folded_bias, convert(bias, dtype));
  }
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
