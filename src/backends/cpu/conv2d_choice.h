#pragma once
// The choice between the ways to do one convolution, by measurement on this machine.

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backends/cpu/conv2d_onednn.h"

namespace resnet::cpu {

/// One way: `make` answers null for a problem that it cannot do.
struct ConvCandidate {
  std::string name;
  bool winograd;
  std::function<std::unique_ptr<Kernel>(const ConvProblem&)> make;
};

/// What the choice is for.
struct ConvAim {
  int threads = 1;
  bool measure = true;
  bool save_memory = false;  ///< see Backend
};

inline ConvAim aim_of(const CpuContext& context) { return {context.threads, context.measure, context.save_memory}; }

/// Indices, fastest first, but of those within 30 % of the fastest (8 % with one image) the one with the least cost:
/// seconds, and for each megabyte of weights, in the form that the kernel reads, 0.1 ms of one of the `threads`. The
/// first two megabytes are free. To save memory it is 0.3 ms, within 50 %.
std::vector<size_t> by_cost(std::span<const double> seconds, std::span<const size_t> weight_bytes, int64_t images,
                            const ConvAim& aim);

/// The kernel of the candidate that `tuning` names for `key`; where it names none that can be made, of the first
/// by_cost (timed on at most 64 images, the weights out of the caches; none that wants far more scratch than another)
/// that can be made for the whole problem, which `tuning` then remembers. Throws when there is none: ResourceError
/// (limit) if one lacked memory, else InternalError. Without `measure` it is, whatever is known, the first of the list
/// that can be made, and nothing is remembered.
std::unique_ptr<Kernel> choose_convolution(const ConvProblem& problem, const std::string& key,
                                           const std::vector<ConvCandidate>& candidates, TuningCache& tuning,
                                           const ConvAim& aim);

}  // namespace resnet::cpu
