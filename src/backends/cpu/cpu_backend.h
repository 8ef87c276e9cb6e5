#pragma once
// The fast backend: oneDNN's primitives and our own SIMD kernels side by side, f32, channel-blocked
// layouts end to end.

#include <memory>

#include "plan/backend.h"

namespace resnet {

/// Which convolution algorithms may be chosen (environment RESNET_CONV_ALGORITHM).
enum class ConvAlgorithms { automatic, direct, winograd };

struct CpuBackendOptions {
  int threads = 1;
  ConvAlgorithms algorithms = ConvAlgorithms::automatic;
  /// False: a convolution gets its first candidate, `direct` where that is allowed, whatever the tuning cache knows.
  /// It needs no packed weights, so it is the fastest to a first answer; and the choice depends on nothing else.
  bool measure = true;
};

/// Throws UserError when RESNET_CONV_ALGORITHM or RESNET_MAX_ISA holds an unknown value.
std::unique_ptr<Backend> make_cpu_backend(CpuBackendOptions options);

/// "auto", "direct" or "winograd"; throws UserError naming the environment variable otherwise.
ConvAlgorithms conv_algorithms_from_environment();

/// Peak f32 multiply-adds of `threads` threads, measured now (about 0.1 s), in FLOP/s.
double measure_fma_peak(int threads);

/// See memory_bandwidth() in runtime.
double measure_memory_bandwidth(int threads);

}  // namespace resnet
