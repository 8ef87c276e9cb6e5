#pragma once

#include <string>

#include "data/dataset.h"
#include "train/model_file.h"

namespace resnet::cli {

/// Throws UserError (refused) unless the data set at `data_path` has as many classes and channels as the model.
void require_data_for(const std::string& model_path, const ModelDescription& model, const std::string& data_path,
                      const Dataset& data);

}  // namespace resnet::cli
