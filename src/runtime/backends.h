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
  f16,   ///< products in half precision, sums in half over short runs of channels and then in f32; all else in f32
  int8,  ///< a quantised model's own: its graph says so, and a backend made for it is one for f32
};

/// "f32", "f16" or "int8", the value of a flag --precision, none where it was not given; throws UserError otherwise.
std::optional<Precision> parse_precision(const std::optional<std::string>& name);
const char* name_of(Precision precision);

/// What a model computes with: what was asked for, else its own, int8 for a quantised one and f32 for another. Throws
/// UserError naming --precision for f32 or f16 of a quantised model, and for int8 of another.
Precision precision_of(std::optional<Precision> asked, bool quantized);

/// "cpu" or "reference"; throws UserError with the nearest names otherwise, for a precision that the backend, or this
/// processor, does not have, and when `threads` are more than four times the CPUs this process may use and more than
/// 32; ResourceError when the system does not give as many.
std::unique_ptr<Backend> make_backend(const std::string& name, int threads,
                                      AlgorithmChoice choice = AlgorithmChoice::measured,
                                      Precision precision = Precision::f32);

/// Peak f32 multiply-add rate of `threads` threads, measured now (about 0.2 s), in FLOP/s.
double fma_peak(int threads);

/// Bytes a second that `threads` threads together copy between two places too large for the caches, read and written
/// bytes both counted; measured now (about 0.1 s).
double memory_bandwidth(int threads);

/// Throws UserError naming --threads for a negative number, and for more than four times the CPUs this process may use
/// and more than 32. 0 stands for available_threads().
void require_thread_count(int64_t count);

/// The threads that `count`, --threads, comes to: available_threads() for 0, and no more than OMP_THREAD_LIMIT, beyond
/// which OpenMP gives none. Throws as require_thread_count().
int compute_threads(int64_t count);

/// Threads to compute with when nobody says how many: the CPUs this process may use (its affinity, its control groups'
/// quotas), or fewer where OMP_NUM_THREADS or OMP_THREAD_LIMIT say so.
int available_threads();

/// The threads that OMP_NUM_THREADS asks for at the outermost level ("4" or "4,2"); none where OpenMP would not
/// understand it, and ignores it.
std::optional<int> openmp_threads(std::string_view value);

/// The CPUs that a control group's quota ("QUOTA PERIOD", the text of cpu.max) allows, rounded up; none for "max
/// PERIOD", and for "-1 PERIOD", which is version 1's.
std::optional<int> group_threads(std::string_view quota);

/// "avx2", "avx512", "generic": what the cpu backend's kernels run with; for logs and checkpoints.
std::string instruction_set();

}  // namespace resnet
