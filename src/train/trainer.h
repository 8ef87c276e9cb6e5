#pragma once
// The training loop: epochs of steps, evaluation, checkpoints, exact resume, clean stops.

#include <atomic>
#include <functional>
#include <limits>
#include <string>

#include "data/dataset.h"
#include "train/config.h"
#include "train/evaluation.h"
#include "train/model_file.h"
#include "train/run_directory.h"

namespace resnet {

/// What the loop tells while it works. The library never prints; the command line does.
struct TrainObserver {
  struct Planned {
    std::string model, backend, output;
    int64_t parameters = 0, steps = 0, start_step = 0, train_images = 0, test_images = 0;
    int64_t threads = 0;
    double gflop_per_step = 0;
    size_t arena_bytes = 0, state_bytes = 0;
    const Program* program = nullptr;
  };
  struct Stepped {
    int64_t step = 0, steps = 0, epoch = 0, epochs = 0;
    double loss = 0, mean_loss = 0, top1 = 0, lr = 0, images_per_second = 0, seconds_left = 0;
  };
  std::function<void(const std::string& what, int done, int total)> on_prepare;
  std::function<void(const Planned&)> on_plan;
  std::function<void(const Stepped&)> on_step;
  std::function<void(int64_t done, int64_t total)> on_evaluate;
  std::function<void(const EpochMetrics&, bool is_best)> on_epoch;
  std::function<void(const std::string& directory)> on_checkpoint;
  std::function<void(const std::string& text)> on_warning;
};

/// What the trained model says of one test image.
struct SamplePrediction {
  int64_t image = 0;
  std::string truth, predicted;
  double probability = 0;
};

/// Losses and accuracies are NaN where nothing was measured (a run cut short before its first evaluation).
struct TrainResult {
  double train_loss = std::numeric_limits<double>::quiet_NaN(), train_top1 = train_loss;
  double eval_loss = train_loss, eval_top1 = train_loss, best_top1 = train_loss;
  std::vector<SamplePrediction> samples;  ///< of the first test images, by the last weights
  std::vector<EpochMetrics> metrics;      ///< of all epochs, those before a resume included
  int64_t steps = 0;                      ///< done, those before a resume included
  int64_t total_steps = 0;                ///< that the settings ask for
  int64_t skipped_samples = 0;            ///< times a training image could not be read and another one stood in
  double images_per_second = 0;           ///< of the training steps, evaluation and saving not counted
  size_t peak_bytes = 0;                  ///< arena, states and packed weights
  std::string output;
  int stopped_by = 0;  ///< the signal that ended the run early, or 0
};

struct TrainRequest {
  TrainConfig config;
  std::string output;                             ///< run directory; empty: runs/MODEL-N
  bool resume = false;                            ///< continue the run in `output` with `config`
  std::string checkpoint;                         ///< with resume: from this one; empty: the one behind `last`
  std::string dump_gradients;                     ///< write the first step's gradients here (safetensors) and go on
  const std::atomic<int>* stop_signal = nullptr;  ///< non-zero: finish the step, save, return
};

/// Runs it. Throws UserError, ResourceError; ExitCode::diverged after three non-finite losses in a row (the
/// steps were not applied, the last checkpoint stays).
TrainResult train(const TrainRequest& request, const TrainObserver& observer);

/// The configuration of the run at `path`, for --resume to start from.
TrainConfig config_of_run(const std::string& path);

}  // namespace resnet
