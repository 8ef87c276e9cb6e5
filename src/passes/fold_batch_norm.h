#pragma once

#include <string>
#include <vector>

#include "passes/pass.h"

namespace resnet {

/// States that a folded convolution reads and how they follow from the model's own:
///   scale = gamma / sqrt(variance + epsilon);  weight' = weight * scale per output channel;
///   bias' = (bias - mean) * scale + beta
struct FoldedConvolution {
  std::string weight, bias;                 ///< the model's; bias is empty when it has none
  std::string gamma, beta, mean, variance;  ///< the model's
  double epsilon = 1e-5;
  std::string folded_weight, folded_bias;  ///< the new states
};

/// batch_norm_inference(conv2d(x, w, b), gamma, beta, mean, var)   ==>   conv2d(x, w', b')
/// Needs: an inference graph whose parameters are states. The new states' values are the caller's to
/// set from the list (InferenceProgram::refresh in train computes them in double).
/// Leaves alone: a convolution or weight with another reader, or parameters that are not states.
/// Source: Jacob et al. 2017, Sec. 3.2.
PassReport fold_batch_norm(Graph& graph, std::vector<FoldedConvolution>& folded);

}  // namespace resnet
