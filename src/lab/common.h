#pragma once
// What the experiments share: names of nets, defaults, and lines of their reports.

#include <cstdint>
#include <string>
#include <vector>

#include "lab/experiment.h"
#include "lab/specimen.h"

namespace resnet {

enum class Kind { plain, residual };

/// "plain56_cifar", "resnet56_cifar_a".
std::string cifar_name(Kind kind, int64_t depth);
/// "plain-56", "residual-56": for curves and tables.
std::string short_name(Kind kind, int64_t depth);

/// The setting if it was given, or the default: the smaller one of a quick run.
int64_t given_or(int64_t given, const LabConfig& config, int64_t full, int64_t quick);

/// What every specimen of an experiment has in common.
SpecimenOptions specimen_options(const LabConfig& config, const std::string& model, int64_t batch_size);

/// "resnet lab NAME ...": the command that gives this report again, with every setting that is not the default.
std::string command_of(const std::string& experiment, const LabConfig& config);

/// Machine, threads, data: the report's small print.
std::vector<std::string> notes_of(const LabConfig& config, double seconds, size_t peak_bytes);

/// The mean of each window of `width` values that ends at its place: a readable curve of a noisy loss.
std::vector<double> smoothed(const std::vector<double>& values, size_t width);

/// 0, 1, 2, ... as a curve's x; `first` of them on.
std::vector<double> count_from(double first, size_t size);

}  // namespace resnet
