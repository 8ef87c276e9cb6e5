#pragma once
// Every setting of a training run, in one place: the command line fills it, config.toml stores it, and
// a resumed run starts from what is stored. Defaults are the lecture's recipe.

#include <cstdint>
#include <string>
#include <vector>

#include "base/shape.h"

namespace resnet {

struct TrainConfig {
  std::string model = "lecture_resnet18";
  std::string data = "fashion-mnist";
  int64_t image_size = 96;  ///< pixels
  int64_t epochs = 10;
  int64_t batch_size = 256;
  double lr = 0.05;
  std::string lr_scheduler = "constant";  ///< constant | cosineannealinglr (per step, to zero at the end)
  double momentum = 0;
  bool nesterov = false;
  double weight_decay = 0;
  double label_smoothing = 0;
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
  std::string weights;       ///< initial weights; empty: drawn from the seed
  int64_t stem_padding = 3;  ///< model.stem_padding, of the lecture's 7x7 convolution

  DType dtype() const { return precision == "f64" ? DType::f64 : DType::f32; }
};

/// Throws UserError naming the flag, what came and what is accepted.
void validate(const TrainConfig& config);

/// config.toml: one `key = value` a setting, in the order above.
std::string to_toml(const TrainConfig& config);
/// Overwrites the settings that the text names. Throws bad_data for a syntax error, UserError for an
/// unknown key (with the nearest names) or a value of the wrong type.
void apply_toml(const std::string& path, const std::string& text, TrainConfig& config);
/// One `key=value` of --set. The key is a setting's name, or model.stem_padding.
void apply_setting(const std::string& assignment, TrainConfig& config);

/// Settings in which two configurations differ, as "lr: 0.05, was 0.1".
std::vector<std::string> differences(const TrainConfig& now, const TrainConfig& before);

/// The learning rate of step `step` (from 0) of `total_steps`.
double learning_rate(const TrainConfig& config, int64_t step, int64_t total_steps);

}  // namespace resnet
