#pragma once
// The only place that names backends.

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "plan/backend.h"

namespace resnet {

/// How a backend decides between the ways to do one convolution.
enum class AlgorithmChoice {
  measured,  ///< what the machine's cache knows; the rest is measured and remembered
  usual,     ///< direct convolution, at once: no weights to prepare, and nothing is looked up, measured or remembered
};

/// What convolutions of constant weights compute with.
enum class Precision {
  f32,
  f16,  ///< products in half precision, sums in half over short runs of channels and then in f32; all else in f32
};

/// "f32" or "f16", the value of a flag --precision; throws UserError otherwise.
Precision parse_precision(const std::string& name);

/// "cpu" or "reference"; throws UserError with the nearest names otherwise, and for a precision that the backend, or
/// this processor, does not have.
std::unique_ptr<Backend> make_backend(const std::string& name, int threads,
                                      AlgorithmChoice choice = AlgorithmChoice::measured,
                                      Precision precision = Precision::f32);

/// Peak f32 multiply-add rate of `threads` threads, measured now (about 0.2 s), in FLOP/s.
double fma_peak(int threads);

/// Bytes a second that `threads` threads together copy between two places too large for the caches, read and written
/// bytes both counted; measured now (about 0.1 s).
double memory_bandwidth(int threads);

/// CPUs this process may use: affinity and cgroup limits counted.
int available_threads();

/// The CPUs that the text of a control group's cpu.max ("QUOTA PERIOD") allows, rounded up; none for "max PERIOD".
std::optional<int> group_threads(std::string_view cpu_max);

/// "avx2", "avx512", "generic": what the cpu backend's kernels run with; for logs and checkpoints.
std::string instruction_set();

}  // namespace resnet
