#include "train/model_file.h"

#include <nlohmann/json.hpp>
#include <string_view>

#include "models/imagenet_classes.h"

namespace resnet {
namespace {

using nlohmann::json;

/// The keys of model options: "model.stem_padding".
constexpr std::string_view kOptionPrefix = "model.";

/// A complaint about the value of `key`: bad_data of the file `path`; without a path, of what the user said of the
/// file.
template <class... Args>
UserError wrong(const std::string& path, const char* key, fmt::format_string<Args...> text, Args&&... args) {
  if (path.empty()) {
    const std::string of_key = key == std::string_view("__metadata__") ? "" : fmt::format("{}: ", key);
    return UserError("--metadata: {}{}", of_key, fmt::format(text, std::forward<Args>(args)...));
  }
  return bad_data(path, 8, key, text, std::forward<Args>(args)...);
}

/// The metadata's value for `key`; bad_data when there is none.
const std::string& value_of(const std::string& path, const std::map<std::string, std::string>& metadata,
                            const char* key) {
  const auto found = metadata.find(key);
  if (found == metadata.end()) {
    throw wrong(path, "__metadata__",
                "no '{}'; expected a model file written by resnet; for weights of others: resnet convert FILE "
                "OUT.safetensors --architecture NAME",
                key);
  }
  return found->second;
}

json json_of(const std::string& path, const std::map<std::string, std::string>& metadata, const char* key) {
  json value = json::parse(value_of(path, metadata, key), nullptr, false);
  if (value.is_discarded()) throw wrong(path, key, "'{}' is not JSON", escape_control(metadata.at(key)));
  return value;
}

int64_t integer_of(const std::string& path, const std::map<std::string, std::string>& metadata, const char* key,
                   int64_t low, int64_t high) {
  const json value = json_of(path, metadata, key);
  if (!value.is_number_integer() || value.get<int64_t>() < low || value.get<int64_t>() > high) {
    throw wrong(path, key, "'{}'; expected an integer from {} to {}", escape_control(metadata.at(key)), low, high);
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
  if (!ok) throw wrong(path, key, "'{}'; expected a JSON array of numbers", escape_control(metadata.at(key)));
  return floats;
}

/// The resize and crop: all keys but the first two may be missing, as they are in older files.
void read_resize(const std::string& path, const std::map<std::string, std::string>& metadata, Preprocessing& p) {
  const json crop = json_of(path, metadata, "crop_pct");
  if (!crop.is_number()) {
    throw wrong(path, "crop_pct", "'{}'; expected a number", escape_control(metadata.at("crop_pct")));
  }
  p.crop_pct = crop.get<double>();
  try {
    p.resize = parse_resize_rule(value_of(path, metadata, "resize"));
  } catch (const UserError& error) {
    throw error.code() == ExitCode::bad_data ? error : wrong(path, "resize", "{}", error.what());
  }
  if (metadata.contains("resize_size")) p.resize_size = integer_of(path, metadata, "resize_size", 0, kMaxImageSize);
  if (const auto turned = metadata.find("exif_orientation"); turned != metadata.end()) {
    if (turned->second != "true" && turned->second != "false") {
      throw wrong(path, "exif_orientation", "'{}'; expected true or false", escape_control(turned->second));
    }
    p.exif_orientation = turned->second == "true";
  }
}

/// A model file as its header tells it.
struct Outline {
  ModelDescription description;
  DType dtype = DType::f32;
  std::vector<StateSpec> states;  ///< empty for a quantised model
  std::optional<Quantization> quantization;
  std::map<std::string, TensorType> quantized;  ///< its tensors
};

/// `quantization`: the metadata's text, or null.
Outline outline_of(const WeightsFile& file, ModelDescription description, const std::string* quantization = nullptr) {
  Outline outline;
  outline.description = std::move(description);
  ModelSpec spec = find_model(outline.description.architecture);
  const int64_t size = outline.description.preprocessing.image_size;
  spec.input = {outline.description.channels, size, size};  // a net of linear layers has weights for each pixel
  if (quantization) {
    const Preprocessing& p = outline.description.preprocessing;
    outline.quantization = parse_quantization(file.path(), *quantization, outline.description.channels, p.mean, p.std);
    try {
      outline.quantized = quantized_tensors(spec, outline.description.options, *outline.quantization);
    } catch (const UserError& error) {  // a layer that is none, or nothing is left of so small an image
      throw bad_data(file.path(), 8, kQuantizationKey, "{}", error.what());
    }
    return outline;
  }
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

namespace {

/// All that the metadata tell but the classes. An empty `path`: a user's words are at fault, see wrong.
ModelDescription description_without_classes(const std::string& path,
                                             const std::map<std::string, std::string>& metadata) {
  ModelDescription model;
  const std::string& architecture = value_of(path, metadata, "architecture");
  ModelSpec spec;
  try {
    spec = find_model(architecture);
  } catch (const UserError& error) {
    throw wrong(path, "architecture", "{}", error.what());
  }
  model.architecture = spec.name;
  const json size = json_of(path, metadata, "input_size");
  const bool is_size = size.is_array() && size.size() == 3 && size[0].is_number_integer() &&
                       size[1].is_number_integer() && size[1] == size[2];
  if (!is_size)
    throw wrong(path, "input_size", "'{}'; expected [channels, size, size]", escape_control(metadata.at("input_size")));
  model.channels = size[0].get<int64_t>();
  model.preprocessing.image_size = size[1].get<int64_t>();
  model.preprocessing.mean = floats_of(path, metadata, "mean");
  model.preprocessing.std = floats_of(path, metadata, "std");
  const std::string& interpolation = value_of(path, metadata, "interpolation");
  try {
    model.preprocessing.interpolation = parse_interpolation(interpolation);
  } catch (const UserError& error) {
    throw wrong(path, "interpolation", "{}", error.what());
  }
  read_resize(path, metadata, model.preprocessing);
  try {
    for (const auto& [key, value] : metadata) {
      if (key.starts_with(kOptionPrefix)) set_option(key.substr(kOptionPrefix.size()), value, model.options);
    }
    check_options(spec, model.options);
  } catch (const UserError& error) {
    throw wrong(path, "__metadata__", "{}", error.what());
  }
  if (model.channels < 1 || model.channels > 64)
    throw wrong(path, "input_size", "{} channels; expected 1 to 64", model.channels);
  try {
    validate(model.preprocessing, model.channels);
  } catch (const UserError& error) {  // here the file is at fault, not a flag
    throw wrong(path, "__metadata__", "{}", error.what());
  }
  return model;
}

ModelDescription description_of(const std::string& path, const std::map<std::string, std::string>& metadata) {
  ModelDescription model = description_without_classes(path, metadata);
  const json names = json_of(path, metadata, "class_names");
  if (!names.is_array() || names.empty()) throw wrong(path, "class_names", "not a JSON array of names");
  for (const json& name : names) {
    if (!name.is_string()) throw wrong(path, "class_names", "holds something else than text");
    model.class_names.push_back(name.get<std::string>());
  }
  model.options.num_classes = integer_of(path, metadata, "num_classes", 1, 1 << 24);
  if (model.options.num_classes != static_cast<int64_t>(model.class_names.size())) {
    throw wrong(path, "num_classes", "{}, but there are {} class names", model.options.num_classes,
                model.class_names.size());
  }
  return model;
}

}  // namespace

ModelDescription from_metadata(const std::string& path, const std::map<std::string, std::string>& metadata) {
  check(!path.empty(), "from_metadata: no path");
  return description_of(path, metadata);
}

namespace {

const std::string* quantization_in(const std::map<std::string, std::string>& metadata) {
  const auto found = metadata.find(kQuantizationKey);
  return found == metadata.end() ? nullptr : &found->second;
}

}  // namespace

LoadedModel load_model(const WeightsFile& file, const std::map<std::string, std::string>& metadata) {
  Outline outline = outline_of(file, from_metadata(file.path(), metadata), quantization_in(metadata));
  LoadedModel model;
  model.values = outline.quantization ? read_quantized(file, outline.quantized) : match_weights(file, outline.states);
  model.description = std::move(outline.description);
  model.dtype = outline.dtype;
  model.quantization = std::move(outline.quantization);
  return model;
}

OpenModel::OpenModel(const std::string& path) : file_(path) {
  Outline outline = outline_of(file_, from_metadata(file_.path(), file_.metadata()), quantization_in(file_.metadata()));
  if (outline.quantization) {
    require_quantized_fit(file_, outline.quantized);
  } else {
    require_fit(file_, outline.states);
  }
  description_ = std::move(outline.description);
  dtype_ = outline.dtype;
  states_ = std::move(outline.states);
  quantization_ = std::move(outline.quantization);
  quantized_ = std::move(outline.quantized);
}

std::map<std::string, Tensor> OpenModel::values() const {
  return quantization_ ? read_quantized(file_, quantized_) : match_weights(file_, states_);
}

std::optional<ContentHash> OpenModel::content(int threads) const {
  const InputFile* file = file_.safetensors_file();
  return file ? std::optional(content_hash(*file, threads)) : std::nullopt;
}

LoadedModel load_model(const std::string& path) {
  const WeightsFile file(path);
  return load_model(file, file.metadata());
}

ModelDescription describe_model(const WeightsFile& file, const std::map<std::string, std::string>& metadata) {
  Outline outline = outline_of(file, from_metadata(file.path(), metadata), quantization_in(metadata));
  if (outline.quantization) {
    require_quantized_fit(file, outline.quantized);
  } else {
    require_fit(file, outline.states);
  }
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

/// A classifier's first dimension is a number in a file, and so many names are made of it.
constexpr int64_t kMostUnnamedClasses = 1 << 18;

std::vector<std::string> usual_class_names(int64_t classes, bool imagenet) {
  if (imagenet && classes == kImagenetClasses) return {kImagenetClassNames.begin(), kImagenetClassNames.end()};
  std::vector<std::string> names;
  for (int64_t k = 0; k < classes; ++k) names.push_back(std::to_string(k));
  return names;
}

/// The model that the user or the file names, the user before the file.
ModelSpec spec_of(const WeightsFile& file, const KnownOfWeights& known) {
  if (!known.architecture.empty()) return find_model(known.architecture);
  const auto named = file.metadata().find("architecture");
  if (named == file.metadata().end()) {
    throw UserError(
        "{}: names no architecture; expected --architecture NAME beside it; `resnet summary --list` shows all",
        file.path());
  }
  try {
    return find_model(named->second);
  } catch (const UserError& error) {
    throw bad_data(file.path(), 8, "architecture", "{}", error.what());
  }
}

Preprocessing usual_preprocessing(const ModelSpec& spec) {
  if (!spec.photos) return {.image_size = spec.input[1]};
  return {.image_size = spec.photos->image_size,
          .resize = ResizeRule::shortest,
          .resize_size = spec.photos->resize_size,
          .crop_pct = spec.photos->crop_pct,
          .interpolation = parse_interpolation(spec.photos->interpolation),
          .mean = {spec.photos->mean.begin(), spec.photos->mean.end()},
          .std = {spec.photos->std.begin(), spec.photos->std.end()}};
}

using Metadata = std::map<std::string, std::string>;

Metadata laid_over(Metadata base, const Metadata& over) {
  for (const auto& [key, value] : over) base[key] = value;
  return base;
}

/// Whose fault it would be if the metadata were refused with the user's words: the file's (its path), if those
/// `without` them are refused too, or the user's (no path).
std::string blamed(const WeightsFile& file, const Metadata& without) {
  try {
    description_without_classes(file.path(), without);
  } catch (const UserError&) {
    return file.path();
  }
  return "";
}

}  // namespace

std::map<std::string, std::string> completed_metadata(const WeightsFile& file, const KnownOfWeights& known) {
  if (file.metadata().contains(kQuantizationKey)) {  // whole, as this program alone writes them
    if (known.architecture.empty() && known.class_names.empty() && known.metadata.empty()) return file.metadata();
    throw UserError(
        "{}: is quantised, and its metadata are part of that; expected no --architecture, --class-names or "
        "--metadata; give them to the f32 model, and quantize that",
        file.path());
  }
  const ModelSpec spec = spec_of(file, known);
  ModelDescription usual{.architecture = spec.name, .channels = spec.input[0]};
  usual.preprocessing = usual_preprocessing(spec);
  // The classes come last: their number is the classifier's, and a file's tensors must fit before names are made.
  Metadata said = laid_over(to_metadata(usual), file.metadata());
  said["architecture"] = spec.name;
  const Metadata of_file = said;
  said = laid_over(said, known.metadata);
  said["architecture"] = spec.name;
  // What somebody says of the crop is not undone by a usual size.
  const auto somebody_says = [&](const char* key) {
    return file.metadata().contains(key) || known.metadata.contains(key);
  };
  if (somebody_says("crop_pct") && !somebody_says("resize_size")) said.erase("resize_size");
  const std::string path = known.metadata.empty() ? file.path() : blamed(file, of_file);
  ModelDescription unnamed = description_without_classes(path, said);
  const int64_t classes = classes_in(file, spec, unnamed.options);
  unnamed.options.num_classes = classes;
  require_fit(file, outline_of(file, std::move(unnamed)).states);

  const auto says = [&](const char* key) {
    return known.metadata.contains(key) || (known.class_names.empty() && file.metadata().contains(key));
  };
  if (!known.class_names.empty() && static_cast<int64_t>(known.class_names.size()) != classes) {
    throw UserError(ExitCode::refused, "{}: {} class names for a classifier of {} classes; expected one name for each",
                    file.path(), known.class_names.size(), classes);
  }
  usual.class_names = known.class_names;
  if (known.class_names.empty() && !says("class_names")) {
    if (classes > kMostUnnamedClasses) {
      throw ResourceError(ExitCode::limit, "{}: {} classes without names; at most {} are accepted: --class-names FILE",
                          file.path(), classes, kMostUnnamedClasses);
    }
    usual.class_names = usual_class_names(classes, spec.photos.has_value());
  }
  if (!says("class_names")) said["class_names"] = json(usual.class_names).dump();
  if (!says("num_classes")) said["num_classes"] = std::to_string(classes);
  const bool users = known.metadata.contains("class_names") || known.metadata.contains("num_classes");
  const std::string names_from = users ? "" : file.path();
  const int64_t named = description_of(names_from, said).options.num_classes;
  if (named != classes) {
    throw wrong(names_from, "num_classes", "{}, but the classifier has {} classes; expected a name for each", named,
                classes);
  }
  return said;
}

bool assumes_preprocessing(const WeightsFile& file, const KnownOfWeights& known) {
  for (const char* key : {"resize", "resize_size", "crop_pct"}) {
    if (file.metadata().contains(key) || known.metadata.contains(key)) return false;
  }
  return spec_of(file, known).photos.has_value();
}

}  // namespace resnet
