#pragma once
// What the experiments share: names of nets, defaults, and lines of their reports.

#include <cstdint>
#include <string>
#include <vector>

#include "lab/experiment.h"
#include "lab/probe.h"
#include "lab/specimen.h"

namespace resnet {

enum class Kind { plain, residual };

/// "plain56_cifar", "resnet56_cifar_a".
std::string cifar_name(Kind kind, int64_t depth);
/// "plain56_mlp", "resnet56_mlp".
std::string mlp_name(Kind kind, int64_t depth);
/// "plain-56", "residual-56": for curves and tables.
std::string short_name(Kind kind, int64_t depth);
/// A curve's style: residual and plain keep their hues in every chart; `variant` (a depth, a step) counts from 0.
int style_of(Kind kind, size_t variant);

/// A net that an experiment looks at.
struct Net {
  Kind kind;
  int64_t depth;
  bool batch_norm;

  /// "plain-56", "residual-56 without batch norm".
  std::string name() const;
};

/// The plain and the residual net of each depth, plain first. `batch_norm`: on, off, or both, then those without it
/// come first.
std::vector<Net> pairs_of_nets(const std::vector<int64_t>& depths, const std::string& batch_norm = "on");

/// "with batch norm", "without batch norm".
const char* with_batch_norm(bool batch_norm);

/// The setting if it was given, or the default: the smaller one of a quick run.
int64_t given_or(int64_t given, const LabConfig& config, int64_t full, int64_t quick);

/// What every specimen of an experiment has in common. Without batch norm a net starts from PyTorch's default scale,
/// U(-1/sqrt(fan in), 1/sqrt(fan in)): Kaiming's is chosen so that a plain net's gradients keep their size, and what
/// the claims speak of shows with the scale that frameworks start from.
SpecimenOptions specimen_options(const LabConfig& config, const std::string& model, int64_t batch_size,
                                 bool batch_norm);

/// "resnet lab NAME ...": the command that gives this report again, with every setting that the experiment takes and
/// that is not the default, quoted for a shell.
std::string command_of(const std::string& experiment, const LabConfig& config);

/// Hands the observer what the net's backend has to warn of, such as a tuning cache that cannot be written.
void tell_warnings(Specimen& net, const LabObserver& observer);

/// Machine, threads, data: the report's small print.
std::vector<std::string> notes_of(const LabConfig& config, double seconds, size_t peak_bytes);

/// How nets without batch norm start.
std::string without_norm_note();

/// "SGD with momentum 0.9, weight decay 1e-4": what a specimen trains with.
std::string optimizer_note(const SpecimenOptions& options);

/// The mean of each window of `width` values that ends at its place: a readable curve of a noisy loss. Not finite where
/// a value of the window is not.
std::vector<double> smoothed(const std::vector<double>& values, size_t width);

/// Norms of the gradients by each layer's weight over the layer's place in the net, 0 at the input, 1 at the output.
Series gradient_curve(const std::string& name, const LayerGradients& gradients, int style);

/// 0, 1, 2, ... as a curve's x; `first` of them on.
std::vector<double> count_from(double first, size_t size);

}  // namespace resnet
