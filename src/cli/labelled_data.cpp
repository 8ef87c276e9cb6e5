#include "cli/labelled_data.h"

#include <algorithm>

#include "base/error.h"

namespace resnet::cli {

void require_data_for(const std::string& model_path, const ModelDescription& model, const std::string& data_path,
                      const Dataset& data) {
  const size_t classes = model.class_names.size();
  const auto refuse = [&](const char* what, size_t ours, int64_t theirs) {
    throw UserError(ExitCode::refused, "{}: {} {}, but {} has {}; expected data of the kind the model was trained on",
                    escape_control(model_path), ours, what, escape_control(data_path), theirs);
  };
  if (data.classes() != static_cast<int64_t>(classes)) refuse("classes", classes, data.classes());
  if (data.channels != model.channels) refuse("channels", static_cast<size_t>(model.channels), data.channels);
}

void warn_of_names(const ModelDescription& model, const std::string& data_path, const Dataset& data,
                   Progress& progress) {
  if (data.class_names == model.class_names) return;
  const auto [ours, theirs] =
      std::mismatch(model.class_names.begin(), model.class_names.end(), data.class_names.begin());
  progress.print(
      fmt::format("resnet: warning: {}: the classes have other names than the model's, e.g. '{}' for '{}'; they are "
                  "taken to come in the model's order",
                  data_path, escape_control(*theirs), escape_control(*ours)));
}

}  // namespace resnet::cli
