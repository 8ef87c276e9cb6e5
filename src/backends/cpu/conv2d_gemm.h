#pragma once
// Our own forward convolution as a matrix product, beside oneDNN's `direct`: docs/decisions/0025-own-matrix-product.md.

#include <memory>

#include "backends/cpu/conv2d_onednn.h"

namespace resnet::cpu {

/// Null for gradients, groups, plain layouts and sizes beyond reason.
std::unique_ptr<Kernel> make_gemm_convolution(const ConvProblem& problem, const CpuContext& context);

}  // namespace resnet::cpu
