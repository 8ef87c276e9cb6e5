#pragma once
// runs/NAME: config.toml, metrics.csv, events.jsonl, checkpoints behind `last`, best.safetensors,
// plots/. One process at a time may write it.

#include <string>
#include <vector>

#include "formats/checkpoint_directory.h"
#include "train/config.h"

namespace resnet {

/// One row of metrics.csv.
struct EpochMetrics {
  int64_t epoch = 0;  ///< from 1
  double train_loss = 0, train_top1 = 0;
  double eval_loss = 0, eval_top1 = 0, eval_top5 = 0;
  double lr = 0;
  double images_per_second = 0;
  double seconds = 0;  ///< training and evaluation of this epoch
};

/// What a checkpoint holds beside weights and momenta.
struct TrainState {
  int64_t step = 0;    ///< steps done
  int64_t epoch = 0;   ///< epochs done
  int64_t sample = 0;  ///< samples of the current epoch already seen
  double epoch_loss_sum = 0;
  int64_t epoch_correct = 0;
  int64_t epoch_images = 0;
  double epoch_seconds = 0;
  int64_t skipped_samples = 0;   ///< times an image could not be read and another one was trained on
  int64_t non_finite_steps = 0;  ///< the last steps in a row that were not applied
  double best_top1 = -1;
  bool evaluation_pending = false;  ///< an epoch ended, but a signal came before its evaluation was done
  uint64_t data_fingerprint = 0;
  int64_t threads = 0;
  std::string instruction_set;
  std::string machine;  ///< Backend::identity
  std::string version;
  std::map<std::string, std::string> choices;  ///< algorithms, see Backend::choices
  std::vector<EpochMetrics> metrics;           ///< of the epochs done
};

std::string to_json(const TrainState& state);
/// Throws bad_data naming the field.
TrainState train_state_from_json(const std::string& path, const std::string& text);

class RunDirectory {
 public:
  /// Makes and locks a new run. Throws UserError (refused) when the directory holds a run or is in use.
  static RunDirectory create(const std::string& path, const TrainConfig& config);
  /// Throws as create() would for what is there already; nothing is made.
  static void require_free(const std::string& path);
  /// Locks an existing run. Throws ResourceError (io) when there is none, UserError (refused) when in use.
  static RunDirectory open(const std::string& path);
  /// Removes what create() made: the run could not even begin.
  void withdraw() noexcept;
  /// The run written to last under `parent`, by the time of its `last`. Throws ResourceError (io) when there is none.
  static std::string newest(const std::string& parent);
  /// "runs/NAME-1", with the first number that is free.
  static std::string fresh_name(const std::string& prefix);

  const std::string& path() const { return path_; }
  TrainConfig config() const;
  /// No checkpoint was ever committed here: a run stopped by force in its first steps.
  bool before_first_checkpoint() const;

  /// metrics.csv and plots/learning_curve.svg, both replaced whole.
  void write_metrics(const std::vector<EpochMetrics>& metrics) const;
  /// Appends one line to events.jsonl.
  void append_event(const std::string& json_line);
  /// Makes events durable; called before a checkpoint commits.
  void sync_events();
  /// Drops events after `step`, and with `evaluation_pending` the evaluation's of that step (a resumed run writes
  /// them again).
  void rewind_events(int64_t step, bool evaluation_pending);

 private:
  explicit RunDirectory(std::string path) : path_(std::move(path)) {}
  void lock();

  std::string path_;
  bool made_ = false;  ///< the directory itself, by create()
  FileDescriptor lock_;
  FileDescriptor events_;
};

}  // namespace resnet
