#pragma once

#include <string>

#include "cli/console.h"
#include "data/dataset.h"
#include "train/model_file.h"

namespace resnet::cli {

/// Throws UserError (refused) unless the data set at `data_path` has as many classes and channels as the model.
void require_data_for(const std::string& model_path, const ModelDescription& model, const std::string& data_path,
                      const Dataset& data);
/// Warns when the classes, as many as the model's, have other names. To be called after require_data_for.
void warn_of_names(const ModelDescription& model, const std::string& data_path, const Dataset& data,
                   Progress& progress);

}  // namespace resnet::cli
