#pragma once
// A model's parameters and statistics: first values, and the way to and from files.

#include <string>
#include <vector>

#include "formats/weights.h"
#include "models/registry.h"
#include "runtime/session.h"

namespace resnet {

/// A parameter or running statistic of a model, in the order of names.
struct StateSpec {
  std::string name;
  TensorType type;
  Initializer initializer;
  bool trainable = false;
};

/// What `model` keeps: every parameter and running statistic, sorted by name.
std::vector<StateSpec> model_states(const ModelSpec& model, const ModelOptions& options, DType dtype);

/// The first value of a state: a pure function of (seed, name).
Tensor initial_value(const StateSpec& state, uint64_t seed);

/// The parameters of the classifier: those of the linear layer, or of the 1x1 convolution, that makes the logits.
/// Empty when something else makes them.
std::vector<std::string> head_states(const ModelSpec& model, const ModelOptions& options);

/// Throws UserError (bad_data) listing the first ten missing, unexpected and misshaped tensors of `file`, unless they
/// are exactly `states`: in name and shape, stored as floats. PyTorch's `num_batches_tracked` is passed over, and so
/// are the tensors named in `left_out`, whatever the file has of them. Reads no tensor.
void require_fit(const WeightsFile& file, const std::vector<StateSpec>& states,
                 const std::vector<std::string>& left_out = {});
/// The tensors of `file` under the model's names, converted to its dtype, without those `left_out`. Throws as
/// require_fit, before any is read.
std::map<std::string, Tensor> match_weights(const WeightsFile& file, const std::vector<StateSpec>& states,
                                            const std::vector<std::string>& left_out = {});

/// Current values of `states` in the session.
std::map<std::string, Tensor> read_states(const Session& session, const std::vector<StateSpec>& states);
void write_states(Session& session, const std::map<std::string, Tensor>& values);

}  // namespace resnet
