#pragma once
// Our own f32 Winograd convolution, 3x3: stride 1 in all three passes, stride 2 forward: y = A^T [(G g G^T) .*
// (B^T d B)] A per tile of m x m outputs, the middle product summed over channels as (m+2)^2 small
// matrix products (Lavin & Gray 2015, arXiv:1509.09308). Fused over blocks of tiles that stay in the
// caches; bias, residual sum and ReLU ride in the inverse transform.
//
// Against double, with channels in the hundreds, the relative RMS error is about 2.5e-7 for m = 2, 5e-7 for
// m = 3 and 8e-7 for m = 4 (direct convolution: 3e-7 to 4e-7). m = 3 and 4 use points that are kinder to f32
// than the textbook's: 0, +-5/8, +-3/2, inf (as oneDNN) for m = 4, and +-1/2, +-5/4, inf for m = 3.
//
//   const WinogradKernels& k = winograd_kernels(detected_isa());
//   std::vector<std::byte, ...> scratch(k.scratch_bytes(problem, WinogradPass::forward, false));
//   k.forward(problem, {.x = x, .w = w, .bias = bias, .relu = true, .y = y, .scratch = scratch.data()});
//
// The same input gives the same bits on every run and with every number of threads.

#include "backends/cpu/simd/isa.h"
#include "backends/cpu/simd/winograd.h"

namespace resnet {

/// The kernels compiled for `isa`. Call only what detected_isa() allows.
const WinogradKernels& winograd_kernels(Isa isa);

/// Why the kernels cannot run `p`, for a person; nullptr if they can.
const char* winograd_refusal(const WinogradProblem& p);

}  // namespace resnet
