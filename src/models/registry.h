#pragma once
// The models by name.

#include <array>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "models/layers.h"

namespace resnet {

/// How many blocks each of up to six stages has, zeros after the last. An array, not a vector, as GCC 12 warns of
/// options with a destructor wherever they are made in braces.
struct StageLayout {
  std::array<int64_t, 6> blocks = {};
  bool empty() const { return blocks[0] == 0; }
  std::vector<int64_t> list() const;
  bool operator==(const StageLayout&) const = default;
};

/// What a user may change about a model (`--set model.KEY=VALUE`). Each model takes some of these, see ModelSpec.
struct ModelOptions {
  int64_t num_classes = 0;          ///< 0: the model's own; every model takes it
  int64_t stem_padding = 3;         ///< of the lecture's 7x7 convolution, pixels
  bool batch_norm = true;           ///< false: no batch norm; the layers before it get biases instead
  bool zero_init_residual = false;  ///< gamma of each block's last batch norm starts 0 (torchvision's name)
  WeightInit init = WeightInit::kaiming;
  StageLayout blocks = {};  ///< empty: the model's own
  double drop_path =
      0;  ///< stochastic depth's rate of the last block, linear from 0 at the first (timm's drop_path_rate)
  bool operator==(const ModelOptions&) const = default;
};

/// How the photos were prepared on which a net's published weights were trained: of the shorter side, resized to
/// floor(image_size / crop_pct) pixels, the centre. Sources: torchvision's weight presets V1, timm's default_cfg.
struct UsualPhotos {
  int64_t image_size = 224;
  double crop_pct = 0.875;
  std::string interpolation = "bilinear";
  std::array<float, 3> mean = {0.485f, 0.456f, 0.406f}, std = {0.229f, 0.224f, 0.225f};
};

struct ModelSpec {
  std::string name;
  std::string summary;  ///< one line
  Shape input;          ///< the usual [C,H,W]
  int64_t num_classes;
  std::function<Value(Scope, Value x, const ModelOptions&)> build;  ///< x [N,C,H,W] -> logits
  std::vector<std::string> options = {};                            ///< that it takes besides num_classes
  std::optional<UsualPhotos> photos = {};                           ///< of the nets for ImageNet
};

/// The models with a name of their own.
const std::vector<ModelSpec>& all_models();

/// The model of that name; its own name is the canonical one. Besides the listed names it knows every depth of a
/// family (resnet26_cifar_b, preresnet110_cifar, wrn16_8_cifar, plain8_mlp), and resnet20_cifar for resnet20_cifar_a.
/// Throws UserError with the nearest names when there is no such model, or with the depths that a family has.
ModelSpec find_model(const std::string& name);

/// The families' names, for people: "resnetN_cifar_a, ... for N = 6n + 2".
extern const char* const kFamilies;

/// "kaiming", "pytorch" or "xavier".
const char* name_of(WeightInit init);

/// The options, other than num_classes, that differ from the defaults: {{"batch_norm", "false"}}.
std::map<std::string, std::string> changed_options(const ModelOptions& options);

/// Sets the option `name` to the value that `text` says. Throws UserError naming "model.NAME", what came and what is
/// accepted: an unknown name or a value out of range.
void set_option(const std::string& name, const std::string& text, ModelOptions& options);

/// Throws UserError unless `model` takes every option that is not at its default.
void check_options(const ModelSpec& model, const ModelOptions& options);

/// Checks the options and builds: x [N,C,H,W] -> logits [N, num_classes].
Value build_model(const ModelSpec& model, Scope s, Value x, const ModelOptions& options);

}  // namespace resnet
