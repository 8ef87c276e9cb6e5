#pragma once
// A trained model as one safetensors file: weights, statistics, and everything needed to predict with
// exactly the preprocessing it was trained with.

#include <optional>
#include <string>
#include <vector>

#include "data/preprocess.h"
#include "formats/weights.h"
#include "train/model_state.h"
#include "train/quantized_model.h"

namespace resnet {

struct ModelDescription {
  std::string architecture;
  ModelOptions options;
  int64_t channels = 1;
  std::vector<std::string> class_names;
  Preprocessing preprocessing;
};

/// `__metadata__`: format=pt, architecture, num_classes, class_names (JSON), input_size, mean, std,
/// interpolation, crop_pct, resize; resize_size and exif_orientation where they are not 0 and false; and model.*
/// options that differ from the usual.
std::map<std::string, std::string> to_metadata(const ModelDescription& model);
/// Throws bad_data naming the key that is missing, malformed, or asks for a preprocessing we do not have.
ModelDescription from_metadata(const std::string& path, const std::map<std::string, std::string>& metadata);

struct LoadedModel {
  ModelDescription description;
  std::map<std::string, Tensor> values;  ///< f32 or f64 as stored
  DType dtype = DType::f32;
  std::optional<Quantization> quantization;  ///< of a model in 8 bits; values are then quantized_tensors()
};

/// A model file whose header is checked, and whose tensors are exactly the architecture's, none of them read yet.
class OpenModel {
 public:
  /// Throws as load_model(path), but for what only the tensors' bytes tell.
  explicit OpenModel(const std::string& path);

  const ModelDescription& description() const { return description_; }
  /// f32 or f64, as stored.
  DType dtype() const { return dtype_; }
  /// Of a model in 8 bits.
  const std::optional<Quantization>& quantization() const { return quantization_; }
  /// What values() gives; empty for a model in 8 bits.
  const std::vector<StateSpec>& states() const { return states_; }
  /// LoadedModel::values.
  std::map<std::string, Tensor> values() const;
  /// Of the whole file: what values() gives, and every word of the description, follow from it. None for a format that
  /// holds no description.
  std::optional<ContentHash> content(int threads) const;

 private:
  WeightsFile file_;
  ModelDescription description_;
  DType dtype_ = DType::f32;
  std::vector<StateSpec> states_;
  std::optional<Quantization> quantization_;
  std::map<std::string, TensorType> quantized_;  ///< its tensors
};

/// Reads and checks a model file: its tensors are exactly the architecture's, and none is read before all fit.
LoadedModel load_model(const std::string& path);
/// The same of any file of weights, of which `metadata` tell what a model file's own would.
LoadedModel load_model(const WeightsFile& file, const std::map<std::string, std::string>& metadata);
/// The same checks of the header alone: no tensor is read.
ModelDescription describe_model(const std::string& path);
ModelDescription describe_model(const WeightsFile& file, const std::map<std::string, std::string>& metadata);

/// What a user knows of weights whose file does not say it.
struct KnownOfWeights {
  std::string architecture;                     ///< empty: as the file says
  std::vector<std::string> class_names;         ///< empty: as the file says, ImageNet's for 1,000 classes, or numbers
  std::map<std::string, std::string> metadata;  ///< single keys, over everything else
};

/// The metadata of a model file for the weights of `file`: the architecture's usual ones, over them what the file says,
/// over them what is `known`. The usual preprocessing of the architectures for ImageNet is that of their published
/// weights (UsualPhotos); for the others the whole image is resized to the architecture's own size. The class count is
/// the classifier's in the file, of which all tensors must fit. Throws UserError (usage) when no architecture is known
/// or one of the known metadata is wrong, ResourceError (limit) past 262,144 classes without names, and as
/// describe_model.
std::map<std::string, std::string> completed_metadata(const WeightsFile& file, const KnownOfWeights& known);
/// Whether that preprocessing was the usual one of published weights, as neither the file nor the user says how images
/// are resized. An architecture must be known.
bool assumes_preprocessing(const WeightsFile& file, const KnownOfWeights& known);

}  // namespace resnet
