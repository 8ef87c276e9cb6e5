#pragma once
// A model compiled for inference: batch norm folded, sums and activations fused.

#include <optional>

#include "models/registry.h"
#include "passes/pipeline.h"
#include "passes/quantize_graph.h"
#include "runtime/session.h"

namespace resnet {

struct Quantization;

struct InferenceOptions {
  ModelOptions model;
  DType dtype = DType::f32;
  Shape images;  ///< [N,C,H,W]
  PassOptions passes;
  /// The session keeps the weights that others are folded from, for refresh(); without them it holds what it computes
  /// with and no more, and is filled by load().
  bool keep_model_states = true;
  /// Of a model in 8 bits, whose program is filled by load() alone; must outlive the program.
  const Quantization* quantization = nullptr;
};

/// A program [N,C,H,W] -> logits [N,K] over the session's states. Call refresh() after states changed.
class InferenceProgram {
 public:
  InferenceProgram(Session& session, const ModelSpec& model, const InferenceOptions& options,
                   const PlanProgress& progress = {});

  /// Recomputes the folded weights from the session's states (in double, then rounded).
  void refresh();
  /// Sets what the program reads from a model's own values, folded as refresh() does. The session's other programs of
  /// this model need no load of their own: states are shared by name.
  void load(std::map<std::string, Tensor> values);
  /// Row-major images [n,C,H,W] of the program's dtype, n <= N (the rest of the batch is left as it was) -> logits
  /// [n,K].
  Tensor run(const Tensor& images);
  /// The program itself, for benchmarks and dumps.
  Program& program() { return *program_; }
  int64_t batch_size() const { return images_[0]; }
  DType dtype() const { return dtype_; }

 private:
  /// A convolution and the batch norm behind it, as the model has them. `bias` is a scalar where there is none.
  struct Unfolded {
    Tensor weight, bias, gamma, beta, mean, variance;
  };
  void write_folded(const FoldedConvolution& f, Unfolded from);

  Session& session_;
  Shape images_;
  DType dtype_;
  Program* program_;
  Tensor partial_;  ///< a whole batch, for images that are fewer
  std::vector<FoldedConvolution> folded_;
  const Quantization* quantization_;
  std::vector<DerivedState> derived_;  ///< of a quantised model
};

/// The forward graph alone, input "images", output "logits"; inference statistics.
std::unique_ptr<Graph> make_inference_graph(const ModelSpec& model, const InferenceOptions& options);

}  // namespace resnet
