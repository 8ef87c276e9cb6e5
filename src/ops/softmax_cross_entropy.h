#pragma once

#include <string>

#include "graph/graph.h"

namespace resnet {

/// logits [N,K], labels i32 [N] -> loss (scalar), probabilities [N,K], correct (scalar).
/// loss = mean over rows of -sum_k target_k * log softmax(logits)_k, where the target is 1 - s + s/K for the label and
/// s/K for the others (s = attrs.label_smoothing). correct = rows whose first maximum is the label.
/// Throws UserError when shapes or the smoothing are off; a label outside [0,K) must have been refused when the data
/// was loaded, and is an InternalError here. Source: PyTorch nn.CrossEntropyLoss.
extern const OpDef kSoftmaxCrossEntropy;
/// (probabilities, labels, dloss scalar) -> dlogits = dloss / N * (probabilities - target).
extern const OpDef kSoftmaxCrossEntropyGrad;

struct SoftmaxCrossEntropyResult {
  Value loss;
  Value probabilities;
  Value correct;
};

SoftmaxCrossEntropyResult softmax_cross_entropy(Value logits, Value labels, double label_smoothing = 0,
                                                std::string name = {});

}  // namespace resnet
