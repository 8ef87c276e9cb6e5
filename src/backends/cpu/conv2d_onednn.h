#pragma once

#include <memory>

#include "backends/cpu/kernels.h"

namespace resnet::cpu {

enum class ConvPass { forward, input_grad, weight_grad };

/// A convolution, or one of its gradients, with everything a kernel needs to know.
struct ConvProblem {
  ConvPass pass = ConvPass::forward;
  Conv2dAttrs attrs;
  Shape x, w, y;
  ValueInfo x_info, w_info, y_info;
  bool constant_weights = false;
  bool plain_residual = false;  ///< the residual is an image as it was fed, not laid out as y
  bool deep = false;            ///< of an inference of so many layers that their roundings add up

  static ConvProblem of(const NodeRequest& request, ConvPass pass);
  /// "forward 256x64x24x24 64x64x3x3 pad=1 ...": the key in the tuning cache.
  std::string key() const;
};

enum class OnednnAlgorithm { direct, winograd };

/// oneDNN's convolution on the layouts as they are. Null when oneDNN has no such algorithm here.
/// Operands whose layout oneDNN cannot take (a packed order of weights, odd groups) are converted in
/// scratch by the kernel itself, constant weights once.
std::unique_ptr<Kernel> make_onednn_convolution(const ConvProblem& problem, OnednnAlgorithm algorithm,
                                                const CpuContext& context);

}  // namespace resnet::cpu
