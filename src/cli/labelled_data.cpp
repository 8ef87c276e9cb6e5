#include "cli/labelled_data.h"

#include "base/error.h"

namespace resnet::cli {

void require_data_for(const std::string& model_path, const ModelDescription& model, const std::string& data_path,
                      const Dataset& data) {
  const size_t classes = model.class_names.size();
  if (data.classes() == static_cast<int64_t>(classes) && data.channels == model.channels) return;
  throw UserError(
      ExitCode::refused,
      "{}: {} classes and {} channels, but {} has {} and {}; expected data of the kind the model was trained on",
      escape_control(model_path), classes, model.channels, escape_control(data_path), data.classes(), data.channels);
}

}  // namespace resnet::cli
