#pragma once
// A model compiled for inference: batch norm folded, sums and activations fused.

#include <optional>

#include "models/registry.h"
#include "passes/pipeline.h"
#include "runtime/session.h"

namespace resnet {

struct InferenceOptions {
  ModelOptions model;
  DType dtype = DType::f32;
  Shape images;  ///< [N,C,H,W]
  PassOptions passes;
};

/// A program [N,C,H,W] -> logits [N,K] over the session's states. Call refresh() after states changed.
class InferenceProgram {
 public:
  InferenceProgram(Session& session, const ModelSpec& model, const InferenceOptions& options);

  /// Recomputes the folded weights from the session's states (in double, then rounded).
  void refresh();
  /// Row-major images [n,C,H,W], n <= N (the rest of the batch is left as it was) -> logits [n,K].
  Tensor run(std::span<const float> images, int64_t n);
  /// The program itself, for benchmarks and dumps.
  Program& program() { return *program_; }
  int64_t batch_size() const { return images_[0]; }

 private:
  Session& session_;
  Shape images_;
  Program* program_;
  std::vector<FoldedConvolution> folded_;
};

/// The forward graph alone, input "images", output "logits"; inference statistics.
std::unique_ptr<Graph> make_inference_graph(const ModelSpec& model, const InferenceOptions& options);

}  // namespace resnet
