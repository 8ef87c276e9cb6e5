#pragma once
// The fast backend: oneDNN's primitives and our own SIMD kernels side by side, f32, channel-blocked
// layouts end to end.

#include <memory>
#include <string>
#include <vector>

#include "plan/backend.h"

namespace resnet {

/// Which convolution algorithms may be chosen (environment RESNET_CONV_ALGORITHM).
enum class ConvAlgorithms { automatic, direct, winograd };

struct CpuBackendOptions {
  int threads = 1;
  ConvAlgorithms algorithms = ConvAlgorithms::automatic;
  /// Kernels that are not to be taken: those whose name holds one of these (environment RESNET_CONV_WITHOUT).
  std::vector<std::string> without;
  /// False: a convolution gets its first candidate, `direct` where that is allowed, whatever the tuning cache knows.
  /// It needs no packed weights, so it is the fastest to a first answer; and the choice depends on nothing else.
  bool measure = true;
  /// Convolutions of constant weights multiply in half precision wherever our kernels can, or f32 is faster. It needs a
  /// processor with AVX512-FP16; the environment variable RESNET_F16=emulate has others compute the same, slowly.
  bool half = false;
};

/// Throws UserError when RESNET_CONV_ALGORITHM, RESNET_MAX_ISA or RESNET_F16 holds an unknown value, and when half
/// precision is asked of a processor without it.
std::unique_ptr<Backend> make_cpu_backend(CpuBackendOptions options);

/// "auto", "direct" or "winograd"; throws UserError naming the environment variable otherwise.
ConvAlgorithms conv_algorithms_from_environment();

/// The families of kernels that RESNET_CONV_WITHOUT names, sorted; throws UserError for a name that is none of them.
std::vector<std::string> conv_without_from_environment();

/// Peak f32 multiply-adds of `threads` threads, measured now (about 0.1 s), in FLOP/s.
double measure_fma_peak(int threads);

/// See memory_bandwidth() in runtime.
double measure_memory_bandwidth(int threads);

}  // namespace resnet
