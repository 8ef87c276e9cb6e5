#pragma once
// The models by name.

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "models/scope.h"

namespace resnet {

/// What a user may change about a model (`--set model.KEY=VALUE`).
struct ModelOptions {
  int64_t num_classes = 0;   ///< 0: the model's own
  int64_t stem_padding = 3;  ///< lecture models only
};

struct ModelSpec {
  std::string name;
  std::string summary;  ///< one line
  Shape input;          ///< the usual [C,H,W]
  int64_t num_classes;
  std::function<Value(Scope, Value x, const ModelOptions&)> build;  ///< x [N,C,H,W] -> logits
};

const std::vector<ModelSpec>& all_models();

/// Throws UserError with the nearest names when there is no such model.
const ModelSpec& find_model(const std::string& name);

}  // namespace resnet
