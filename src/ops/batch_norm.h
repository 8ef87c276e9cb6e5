#pragma once
// Batch normalisation (Ioffe and Szegedy 2015), optionally with the tail of a residual block fused in.

#include <string>

#include "graph/graph.h"

namespace resnet {

/// Training: y = relu?((x - mean) / sqrt(var + epsilon) * gamma + beta + residual?), with the batch's own statistics.
/// x [N,C,...], gamma [C], beta [C], residual like x if attrs.residual -> y like x, mean [C], var [C] (biased).
/// Throws UserError: shapes that disagree, or one value a channel (it has no variance; PyTorch refuses it too).
extern const OpDef kBatchNorm;
/// Inference: the same formula with given statistics. x, gamma, beta, mean, var, residual? -> y.
extern const OpDef kBatchNormInference;
/// Gradients of both (attrs.training says which): with g = dy, or dy where y > 0 if attrs.relu,
/// (dy, x, gamma, mean, var, y if attrs.relu) -> dx, dgamma [C], dbeta [C], dresidual = g if attrs.residual.
extern const OpDef kBatchNormGrad;

struct BatchNormResult {
  Value y;
  Value mean;
  Value var;  ///< biased
};

BatchNormResult batch_norm_training(Value x, Value gamma, Value beta, double epsilon, std::string name = {});
Value batch_norm_inference(Value x, Value gamma, Value beta, Value mean, Value var, double epsilon,
                           std::string name = {});

}  // namespace resnet
