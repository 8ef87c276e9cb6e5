#pragma once
// One training step as a graph: forward, loss, gradients, updates.

#include <memory>
#include <span>

#include "data/loader.h"
#include "models/registry.h"
#include "passes/pipeline.h"
#include "runtime/session.h"

namespace resnet {

struct TrainingStepOptions {
  ModelOptions model;
  DType dtype = DType::f32;
  Shape images;  ///< [N,C,H,W]
  double momentum = 0;
  bool nesterov = false;
  double weight_decay = 0;
  double label_smoothing = 0;
  bool gradient_outputs = false;  ///< also outputs "gradient:NAME" for every parameter
  PassOptions passes;
};

/// Inputs: images [N,C,H,W], labels i32 [N], lr (scalar), and of each of drop_paths() its factors [N]. Outputs: loss
/// (mean), correct (top-1 count). Assigns every parameter (SGD), momentum buffer ("momentum/NAME") and running
/// statistic; none of them changes when the loss is not finite.
std::unique_ptr<Graph> make_training_step(const ModelSpec& model, const TrainingStepOptions& options);

/// Feeds a batch and, where the program takes one, the learning rate.
void set_step_inputs(Program& program, const Batch& batch, double lr);

/// The branches of stochastic depth of a training step of `model`: none unless options.drop_path is set.
std::vector<DropPath> drop_paths(const ModelSpec& model, const ModelOptions& options);

/// What sample `sample` multiplies the branch by in epoch `epoch`: 0, with probability `rate`, or 1 / (1 - rate). A
/// pure function of its arguments, so that a resumed run drops what the first one would have dropped.
double drop_path_factor(const DropPath& branch, uint64_t seed, int64_t epoch, int64_t sample);

/// Feeds the factors of the batch's samples.
void set_drop_paths(Program& program, std::span<const DropPath> branches, const Batch& batch, uint64_t seed);

}  // namespace resnet
