#include "train/model_file.h"

#include <nlohmann/json.hpp>

namespace resnet {
namespace {

using nlohmann::json;

/// The metadata's value for `key`; bad_data when there is none.
const std::string& value_of(const std::string& path, const std::map<std::string, std::string>& metadata,
                            const char* key) {
  const auto found = metadata.find(key);
  if (found == metadata.end()) {
    throw bad_data(path, 8, "__metadata__", "no '{}'; expected a model file written by resnet", key);
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
      {"interpolation", "bilinear"},
      {"crop_pct", "1.0"},
      {"resize", "squash"},  // the whole image to the square, as torchvision's Resize((S, S))
  };
  if (model.options.stem_padding != ModelOptions{}.stem_padding)
    metadata["model.stem_padding"] = std::to_string(model.options.stem_padding);
  return metadata;
}

ModelDescription from_metadata(const std::string& path, const std::map<std::string, std::string>& metadata) {
  ModelDescription model;
  model.architecture = value_of(path, metadata, "architecture");
  try {
    find_model(model.architecture);
  } catch (const UserError& error) {
    throw bad_data(path, 8, "architecture", "{}", error.what());
  }
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
  if (value_of(path, metadata, "interpolation") != "bilinear") {
    throw bad_data(path, 8, "interpolation", "'{}'; expected bilinear", escape_control(metadata.at("interpolation")));
  }
  if (metadata.contains("model.stem_padding"))
    model.options.stem_padding = integer_of(path, metadata, "model.stem_padding", 0, 6);
  if (model.channels < 1 || model.channels > 64)
    throw bad_data(path, 8, "input_size", "{} channels; expected 1 to 64", model.channels);
  try {
    validate(model.preprocessing, model.channels);
  } catch (const UserError& error) {  // here the file is at fault, not a flag
    throw bad_data(path, 8, "__metadata__", "{}", error.what());
  }
  return model;
}

LoadedModel load_model(const std::string& path) {
  const ModelFile file = read_safetensors(path);
  LoadedModel model;
  model.description = from_metadata(path, file.metadata);
  ModelSpec spec = find_model(model.description.architecture);
  spec.input[0] = model.description.channels;
  for (const auto& [name, tensor] : file.tensors) {
    if (tensor.dtype() == DType::f64) model.dtype = DType::f64;
  }
  model.values = match_weights(path, file, model_states(spec, model.description.options, model.dtype));
  return model;
}

}  // namespace resnet
