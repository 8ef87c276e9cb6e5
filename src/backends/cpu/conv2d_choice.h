#pragma once
// The choice between the ways to do one convolution, by measurement on this machine.

#include <functional>
#include <memory>
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

/// The kernel of the candidate that `tuning` names for `key`; where it names none that can be made, of the fastest
/// (timed on at most 64 images, the weights out of the caches, with `threads`; of those within 8 % of it a
/// megabyte of weights counts as 0.1 ms; none that wants far more scratch than another) that can be made for the whole
/// problem, which `tuning` then remembers. Throws when there is none: ResourceError (limit) if one lacked memory, else
/// InternalError. Without `measure` it is, whatever is known, the first of the list that can be made, and nothing is
/// remembered.
std::unique_ptr<Kernel> choose_convolution(const ConvProblem& problem, const std::string& key,
                                           const std::vector<ConvCandidate>& candidates, TuningCache& tuning,
                                           int threads, bool measure = true);

}  // namespace resnet::cpu
