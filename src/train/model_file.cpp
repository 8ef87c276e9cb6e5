#include "train/model_file.h"

#include <nlohmann/json.hpp>
#include <string_view>

#include "models/imagenet_classes.h"

namespace resnet {
namespace {

using nlohmann::json;

/// The keys of model options: "model.stem_padding".
constexpr std::string_view kOptionPrefix = "model.";

/// The metadata's value for `key`; bad_data when there is none.
const std::string& value_of(const std::string& path, const std::map<std::string, std::string>& metadata,
                            const char* key) {
  const auto found = metadata.find(key);
  if (found == metadata.end()) {
    throw bad_data(path, 8, "__metadata__",
                   "no '{}'; expected a model file written by resnet; for weights of others: resnet convert FILE "
                   "OUT.safetensors --architecture NAME",
                   key);
  }
  return found->second;
}

json json_of(const std::string& path, const std::map<std::string, std::string>& metadata, const char* key) {
  json value = json::parse(value_of(path, metadata, key), nullptr, false);
  if (value.is_discarded()) throw bad_data(path, 8, key, "'{}' is not JSON", escape_control(metadata.at(key)));
  return value;
}

int64_t integer_of(const std::string& path, const std::map<std::string, std::string>& metadata, const char* key,
                   int64_t low, int64_t high) {
  const json value = json_of(path, metadata, key);
  if (!value.is_number_integer() || value.get<int64_t>() < low || value.get<int64_t>() > high) {
    throw bad_data(path, 8, key, "'{}'; expected an integer from {} to {}", escape_control(metadata.at(key)), low,
                   high);
  }
  return value.get<int64_t>();
}

std::vector<float> floats_of(const std::string& path, const std::map<std::string, std::string>& metadata,
                             const char* key) {
  const json value = json_of(path, metadata, key);
  std::vector<float> floats;
  bool ok = value.is_array();
  for (const json& item : value) {
    ok = ok && item.is_number();
    if (ok) floats.push_back(item.get<float>());
  }
  if (!ok) throw bad_data(path, 8, key, "'{}'; expected a JSON array of numbers", escape_control(metadata.at(key)));
  return floats;
}

/// The resize and crop: all keys but the first two may be missing, as they are in older files.
void read_resize(const std::string& path, const std::map<std::string, std::string>& metadata, Preprocessing& p) {
  const json crop = json_of(path, metadata, "crop_pct");
  if (!crop.is_number()) {
    throw bad_data(path, 8, "crop_pct", "'{}'; expected a number", escape_control(metadata.at("crop_pct")));
  }
  p.crop_pct = crop.get<double>();
  try {
    p.resize = parse_resize_rule(value_of(path, metadata, "resize"));
  } catch (const UserError& error) {
    throw error.code() == ExitCode::bad_data ? error : bad_data(path, 8, "resize", "{}", error.what());
  }
  if (metadata.contains("resize_size")) p.resize_size = integer_of(path, metadata, "resize_size", 0, kMaxImageSize);
  if (const auto turned = metadata.find("exif_orientation"); turned != metadata.end()) {
    if (turned->second != "true" && turned->second != "false") {
      throw bad_data(path, 8, "exif_orientation", "'{}'; expected true or false", escape_control(turned->second));
    }
    p.exif_orientation = turned->second == "true";
  }
}

/// A model file as its header tells it.
struct Outline {
  ModelDescription description;
  DType dtype = DType::f32;
  std::vector<StateSpec> states;
};

Outline outline_of(const WeightsFile& file, const std::map<std::string, std::string>& metadata) {
  Outline outline;
  outline.description = from_metadata(file.path(), metadata);
  ModelSpec spec = find_model(outline.description.architecture);
  const int64_t size = outline.description.preprocessing.image_size;
  spec.input = {outline.description.channels, size, size};  // a net of linear layers has weights for each pixel
  for (const auto& [name, entry] : file.entries()) {
    if (entry.dtype() == DType::f64) outline.dtype = DType::f64;
  }
  try {
    outline.states = model_states(spec, outline.description.options, outline.dtype);
  } catch (const UserError& error) {  // nothing is left of so small an image
    throw bad_data(file.path(), 8, "input_size", "{}", error.what());
  }
  return outline;
}

}  // namespace

std::map<std::string, std::string> to_metadata(const ModelDescription& model) {
  const Preprocessing& p = model.preprocessing;
  std::map<std::string, std::string> metadata = {
      {"format", "pt"},
      {"architecture", model.architecture},
      {"num_classes", std::to_string(model.class_names.size())},
      {"class_names", json(model.class_names).dump()},
      {"input_size", json({model.channels, p.image_size, p.image_size}).dump()},
      {"mean", json(p.mean).dump()},
      {"std", json(p.std).dump()},
      {"interpolation", name_of(p.interpolation)},
      {"crop_pct", json(p.crop_pct).dump()},
      {"resize", name_of(p.resize)},
  };
  if (p.resize_size != 0) metadata["resize_size"] = std::to_string(p.resize_size);
  if (p.exif_orientation) metadata["exif_orientation"] = "true";
  for (const auto& [name, value] : changed_options(model.options)) metadata[std::string(kOptionPrefix) + name] = value;
  return metadata;
}

ModelDescription from_metadata(const std::string& path, const std::map<std::string, std::string>& metadata) {
  ModelDescription model;
  const std::string& architecture = value_of(path, metadata, "architecture");
  ModelSpec spec;
  try {
    spec = find_model(architecture);
  } catch (const UserError& error) {
    throw bad_data(path, 8, "architecture", "{}", error.what());
  }
  model.architecture = spec.name;
  const json names = json_of(path, metadata, "class_names");
  if (!names.is_array() || names.empty()) throw bad_data(path, 8, "class_names", "not a JSON array of names");
  for (const json& name : names) {
    if (!name.is_string()) throw bad_data(path, 8, "class_names", "holds something else than text");
    model.class_names.push_back(name.get<std::string>());
  }
  model.options.num_classes = integer_of(path, metadata, "num_classes", 1, 1 << 24);
  if (model.options.num_classes != static_cast<int64_t>(model.class_names.size())) {
    throw bad_data(path, 8, "num_classes", "{}, but there are {} class names", model.options.num_classes,
                   model.class_names.size());
  }
  const json size = json_of(path, metadata, "input_size");
  const bool is_size = size.is_array() && size.size() == 3 && size[0].is_number_integer() &&
                       size[1].is_number_integer() && size[1] == size[2];
  if (!is_size)
    throw bad_data(path, 8, "input_size", "'{}'; expected [channels, size, size]",
                   escape_control(metadata.at("input_size")));
  model.channels = size[0].get<int64_t>();
  model.preprocessing.image_size = size[1].get<int64_t>();
  model.preprocessing.mean = floats_of(path, metadata, "mean");
  model.preprocessing.std = floats_of(path, metadata, "std");
  const std::string& interpolation = value_of(path, metadata, "interpolation");
  try {
    model.preprocessing.interpolation = parse_interpolation(interpolation);
  } catch (const UserError& error) {
    throw bad_data(path, 8, "interpolation", "{}", error.what());
  }
  read_resize(path, metadata, model.preprocessing);
  try {
    for (const auto& [key, value] : metadata) {
      if (key.starts_with(kOptionPrefix)) set_option(key.substr(kOptionPrefix.size()), value, model.options);
    }
    check_options(spec, model.options);
  } catch (const UserError& error) {
    throw bad_data(path, 8, "__metadata__", "{}", error.what());
  }
  if (model.channels < 1 || model.channels > 64)
    throw bad_data(path, 8, "input_size", "{} channels; expected 1 to 64", model.channels);
  try {
    validate(model.preprocessing, model.channels);
  } catch (const UserError& error) {  // here the file is at fault, not a flag
    throw bad_data(path, 8, "__metadata__", "{}", error.what());
  }
  return model;
}

LoadedModel load_model(const WeightsFile& file, const std::map<std::string, std::string>& metadata) {
  Outline outline = outline_of(file, metadata);
  return {.description = std::move(outline.description),
          .values = match_weights(file, outline.states),
          .dtype = outline.dtype};
}

LoadedModel load_model(const std::string& path) {
  const WeightsFile file(path);
  return load_model(file, file.metadata());
}

ModelDescription describe_model(const WeightsFile& file, const std::map<std::string, std::string>& metadata) {
  Outline outline = outline_of(file, metadata);
  require_fit(file, outline.states);
  return std::move(outline.description);
}

ModelDescription describe_model(const std::string& path) {
  const WeightsFile file(path);
  return describe_model(file, file.metadata());
}

namespace {

/// Classes of the classifier in `file`; the architecture's usual number when there is none in its place, of which
/// require_fit tells.
int64_t classes_in(const WeightsFile& file, const ModelSpec& spec, const ModelOptions& options) {
  for (const std::string& name : head_states(spec, options)) {
    const auto found = file.entries().find(name);
    if (found != file.entries().end() && found->second.shape.rank() > 0 && found->second.shape[0] > 0)
      return found->second.shape[0];
  }
  return spec.num_classes;
}

std::vector<std::string> usual_class_names(int64_t classes, bool imagenet) {
  if (imagenet && classes == kImagenetClasses) return {kImagenetClassNames.begin(), kImagenetClassNames.end()};
  std::vector<std::string> names;
  for (int64_t k = 0; k < classes; ++k) names.push_back(std::to_string(k));
  return names;
}

}  // namespace

std::map<std::string, std::string> completed_metadata(const WeightsFile& file, const KnownOfWeights& known) {
  std::map<std::string, std::string> said = file.metadata();
  for (const auto& [key, value] : known.metadata) said[key] = value;
  if (!known.architecture.empty()) said["architecture"] = known.architecture;
  if (!said.contains("architecture")) {
    throw UserError(
        "{}: names no architecture; expected --architecture NAME beside it; `resnet summary --list` shows all",
        file.path());
  }
  const ModelSpec spec = find_model(said["architecture"]);
  ModelDescription usual{.architecture = spec.name, .channels = spec.input[0]};
  for (const auto& [key, value] : said) {
    if (key.starts_with(kOptionPrefix)) set_option(key.substr(kOptionPrefix.size()), value, usual.options);
  }
  const int64_t classes = classes_in(file, spec, usual.options);
  if (classes > 1 << 24)
    throw bad_data(file.path(), 0, "classifier", "{} classes; expected {} at most", classes, 1 << 24);
  if (!known.class_names.empty() && static_cast<int64_t>(known.class_names.size()) != classes) {
    throw UserError(ExitCode::refused, "{}: {} class names for a classifier of {} classes; expected one name for each",
                    file.path(), known.class_names.size(), classes);
  }
  usual.class_names =
      known.class_names.empty() ? usual_class_names(classes, spec.photos.has_value()) : known.class_names;
  usual.preprocessing.image_size = spec.input[1];
  if (spec.photos) {
    usual.preprocessing = {.image_size = spec.photos->image_size,
                           .resize = ResizeRule::shortest,
                           .crop_pct = spec.photos->crop_pct,
                           .interpolation = parse_interpolation(spec.photos->interpolation),
                           .mean = {spec.photos->mean.begin(), spec.photos->mean.end()},
                           .std = {spec.photos->std.begin(), spec.photos->std.end()}};
  }
  std::map<std::string, std::string> metadata = to_metadata(usual);
  for (const auto& [key, value] : said) metadata[key] = value;
  if (!known.class_names.empty()) {
    for (const char* key : {"class_names", "num_classes"}) {
      if (!known.metadata.contains(key)) metadata[key] = to_metadata(usual).at(key);
    }
  }
  metadata["architecture"] = spec.name;
  describe_model(file, metadata);
  return metadata;
}

}  // namespace resnet
