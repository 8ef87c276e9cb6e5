#pragma once
// Every setting of a training run, in one place: the command line fills it, config.toml stores it, and
// a resumed run starts from what is stored. Defaults are the lecture's recipe.

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "base/shape.h"
#include "data/preprocess.h"
#include "models/registry.h"

namespace resnet {

struct TrainConfig {
  std::string model = "lecture_resnet18";
  std::string data = "fashion-mnist";
  int64_t channels = 0;                ///< of the images: 1 grey, 3 RGB, 0 the data's own
  std::string on_bad_sample = "stop";  ///< stop | skip: an image that cannot be read ends the run, or is counted
  int64_t image_size = 96;             ///< pixels
  // How images become the network's input, see preprocessing() and Preprocessing.
  std::string resize = "squash";  ///< squash | shortest
  int64_t resize_size = 0;        ///< pixels; 0: as crop_pct says
  double crop_pct = 1;
  std::string interpolation = "bilinear";
  std::vector<double> mean;       ///< of each channel, of the scale 0..1; empty: 0
  std::vector<double> std;        ///< of each channel; empty: 1
  bool exif_orientation = false;  ///< photos are turned upright as their EXIF says
  int64_t epochs = 10;
  int64_t batch_size = 256;
  double lr = 0.05;
  std::string lr_scheduler = "constant";  ///< constant | cosineannealinglr | steplr | multisteplr, see learning_rate()
  int64_t lr_step_size = 30;              ///< of steplr: epochs between decays
  double lr_gamma = 0.1;                  ///< of steplr and multisteplr: factor of each decay
  std::vector<int64_t> lr_milestones;     ///< of multisteplr: epochs of the decays, ascending
  double lr_warmup_epochs = 0;            ///< epochs before the schedule starts; any fraction
  std::string lr_warmup_method = "constant";  ///< constant | linear
  double lr_warmup_decay = 0.01;              ///< factor of lr that the warm-up starts from
  double momentum = 0;
  bool nesterov = false;
  double weight_decay = 0;
  double label_smoothing = 0;
  int64_t random_crop_padding = 0;  ///< pixels on each side, of training images; see Augmentation
  double hflip_prob = 0;            ///< probability, of training images
  int64_t seed = 0;
  int64_t threads = 0;  ///< 0: all CPUs this process may use
  int64_t workers = 1;  ///< threads that prepare batches ahead
  bool shuffle = true;
  int64_t limit = 0;      ///< use the first N training images; 0: all
  int64_t max_steps = 0;  ///< stop after N steps; 0: after the last epoch
  int64_t log_every = 50;
  int64_t checkpoint_every = 0;  ///< steps; a checkpoint is saved after each epoch anyway
  std::string backend = "cpu";
  std::string precision = "f32";
  std::string weights;          ///< initial weights, safetensors or .pth; empty: drawn from the seed
  bool reset_head = false;      ///< the classifier is drawn from the seed all the same, for other classes
  std::string disabled_passes;  ///< names, separated by commas
  int64_t stem_padding = 3;     ///< model.stem_padding, of the lecture's 7x7 convolution
  // The other model.* settings, see ModelOptions; a model takes some of them.
  bool batch_norm = true;
  bool zero_init_residual = false;
  std::string init = "kaiming";  ///< kaiming | pytorch | xavier
  std::vector<int64_t> blocks;   ///< of each stage; empty: the model's own
  double drop_path = 0;          ///< stochastic depth's rate of the last block

  DType dtype() const { return precision == "f64" ? DType::f64 : DType::f32; }
};

/// Throws UserError naming the flag, what came and what is accepted.
void validate(const TrainConfig& config);

/// What becomes of an image before it meets the network, in training and evaluation alike: the resize and the crop of
/// its centre come first, and training's random crops and flips are of that square. The trained model keeps it.
/// resize_size wins over crop_pct, which is then what it amounts to. Throws UserError for an unknown name.
Preprocessing preprocessing(const TrainConfig& config);

/// The model.* settings; num_classes stays 0, it comes with the data. Throws UserError for an unknown model.init.
ModelOptions model_options(const TrainConfig& config);

/// config.toml: one `key = value` a setting, in the order above.
std::string to_toml(const TrainConfig& config);
/// Overwrites the settings that the text names. Throws UserError for a syntax error, an unknown key (with the nearest
/// names) or a value of the wrong type. Returns the settings' names.
std::set<std::string> apply_toml(const std::string& path, const std::string& text, TrainConfig& config);
/// One `key=value` of --set. The key is a setting's name, such as lr or model.init; a list is 82,123 or [82, 123].
/// Returns the name.
std::string apply_setting(const std::string& assignment, TrainConfig& config);

/// resize_size and crop_pct say the same: where one source of settings gave one of them alone, what the other was
/// before is reset. `given`: the names of the settings that the source gave.
void reset_the_resize_not_given(const std::set<std::string>& given, TrainConfig& config);

/// Settings in which two configurations differ, as "lr: 0.05, was 0.1".
std::vector<std::string> differences(const TrainConfig& now, const TrainConfig& before);

/// The passes that `config` leaves out.
std::set<std::string> disabled_passes(const TrainConfig& config);

/// The learning rate of step `step` (from 0) when an epoch has `steps_per_epoch`, at least 1. With every number of
/// epochs counted in steps and W = lr_warmup_epochs rounded to whole steps:
///   step < W:           lr * decay (constant), or lr * (decay + (1 - decay) * step / W) (linear)
///   else, s = step - W: constant           lr
///                       cosineannealinglr  lr * (1 + cos(pi * s / (epochs - W))) / 2, which ends at 0
///                       steplr             lr * gamma ^ floor(s / lr_step_size)
///                       multisteplr        lr * gamma ^ (how many milestones are <= s)
/// so decays count from the end of the warm-up. This is PyTorch's SequentialLR of ConstantLR or LinearLR and of
/// CosineAnnealingLR, StepLR or MultiStepLR, as torchvision's references/classification/train.py chains them, moved
/// after every step instead of every epoch: with a warm-up of whole epochs, the rate of each epoch's first step is
/// theirs. Within an epoch it stands still there, and here cosine and linear warm-up go on.
double learning_rate(const TrainConfig& config, int64_t step, int64_t steps_per_epoch);

}  // namespace resnet
