#include "train/training_step.h"

#include <algorithm>

#include "autodiff/gradients.h"
#include "base/rng.h"
#include "ops/fill.h"
#include "ops/running_average.h"
#include "ops/sgd_update.h"
#include "ops/softmax_cross_entropy.h"

namespace resnet {

std::unique_ptr<Graph> make_training_step(const ModelSpec& model, const TrainingStepOptions& options) {
  auto graph = std::make_unique<Graph>();
  const Value images = graph->input("images", {options.dtype, options.images});
  const Value labels = graph->input("labels", {DType::i32, Shape{options.images[0]}});
  const Value lr = graph->input("lr", {options.dtype, Shape{}});

  ModelBuilder builder{*graph, options.dtype, true, {}};
  const Value logits = build_model(model, Scope(builder), images, options.model);
  const SoftmaxCrossEntropyResult result = softmax_cross_entropy(logits, labels, options.label_smoothing);
  graph->set_output("loss", result.loss);
  graph->set_output("correct", result.correct);
  for (const RunningStatistic& s : builder.statistics) {
    const Value updated = running_average(s.running, s.batch, result.loss, {.momentum = s.momentum, .scale = s.scale},
                                          graph->node(s.running).name);
    graph->assign(s.running, updated);
  }
  run_forward_passes(*graph, options.passes);

  const Value loss = graph->outputs().at("loss");
  std::vector<Value> parameters;
  for (const auto& [name, id] : graph->leaves()) {
    if (graph->node(id).trainable) parameters.push_back(graph->value(id));
  }
  const std::vector<Value> grads = gradients(loss, parameters);
  for (size_t i = 0; i < parameters.size(); ++i) {
    const Value parameter = parameters[i];
    const std::string name = graph->node(parameter).name;
    Value buffer;
    if (options.momentum != 0) buffer = graph->state("momentum/" + name, parameter.type(), {}, false);
    const SgdUpdateResult updated = sgd_update(
        parameter, grads[i], lr, loss, buffer,
        {.momentum = options.momentum, .weight_decay = options.weight_decay, .nesterov = options.nesterov}, name);
    graph->assign(parameter, updated.param);
    if (buffer) graph->assign(buffer, updated.buffer);
    if (options.gradient_outputs) graph->set_output("gradient:" + name, grads[i]);
  }
  run_training_passes(*graph, options.passes);
  return graph;
}

void set_step_inputs(Program& program, const Batch& batch, double lr) {
  program.set_input("images", batch.images);
  Tensor labels(DType::i32, Shape{batch.size()});
  std::copy(batch.labels.begin(), batch.labels.end(), labels.as<int32_t>().begin());
  program.set_input("labels", labels);
  if (!program.plan().inputs.contains("lr")) return;
  Tensor rate(batch.images.dtype(), Shape{});
  with_float(rate.dtype(), [&](auto tag) {
    using T = decltype(tag);
    rate.as<T>()[0] = static_cast<T>(lr);
  });
  program.set_input("lr", rate);
}

std::vector<DropPath> drop_paths(const ModelSpec& model, const ModelOptions& options) {
  if (options.drop_path == 0) return {};
  Graph graph;
  ModelBuilder builder{graph, DType::f32, true, {}};
  const Shape& image = model.input;
  build_model(model, Scope(builder), graph.input("images", {DType::f32, {2, image[0], image[1], image[2]}}), options);
  return builder.drop_paths;
}

double drop_path_factor(const DropPath& branch, uint64_t seed, int64_t epoch, int64_t sample) {
  const uint64_t of_branch = hash_combine(hash_text("drop path"), hash_text(branch.input));
  const uint64_t of_epoch = hash_combine(hash_combine(of_branch, seed), static_cast<uint64_t>(epoch));
  return Rng(hash_combine(of_epoch, static_cast<uint64_t>(sample))).uniform() < branch.rate ? 0 : 1 / (1 - branch.rate);
}

void set_drop_paths(Program& program, std::span<const DropPath> branches, const Batch& batch, uint64_t seed) {
  for (const DropPath& branch : branches) {
    Tensor factors(batch.images.dtype(), Shape{batch.size()});
    with_float(factors.dtype(), [&](auto tag) {
      using T = decltype(tag);
      for (size_t i = 0; i < batch.samples.size(); ++i)
        factors.as<T>()[i] = static_cast<T>(drop_path_factor(branch, seed, batch.epoch, batch.samples[i]));
    });
    program.set_input(branch.input, factors);
  }
}

}  // namespace resnet
