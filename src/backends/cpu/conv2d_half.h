#pragma once
// Forward convolutions of constant weights that multiply in half precision (--precision f16): direct ones of any
// kernel and stride, and Winograd's for 3x3 of stride 1. Activations, bias, residual and ReLU stay f32.
// Source of the Winograd part: winograd.h; of the arithmetic and its range: simd/conv2d_half_impl.h.

#include <memory>
#include <string>

#include "backends/cpu/conv2d_onednn.h"

namespace resnet::cpu {

/// Why `context.half` cannot do the problem with this tile (0: direct); empty when it can.
std::string half_convolution_refusal(const ConvProblem& problem, int tile, const CpuContext& context);

/// "f16 direct" or "f16 winograd f4".
std::string half_convolution_name(int tile);

/// Null when it cannot.
std::unique_ptr<Kernel> make_half_convolution(const ConvProblem& problem, int tile, const CpuContext& context);

}  // namespace resnet::cpu
