#pragma once
// A net under study: its values, its training step, and whatever other programs an experiment makes of it. Unlike a
// run of `resnet train` it keeps nothing on disk.

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "data/loader.h"
#include "train/inference.h"
#include "train/model_state.h"

namespace resnet {

struct SpecimenOptions {
  std::string model;
  ModelOptions model_options = {};
  int64_t image_size = 28;  ///< pixels
  int64_t batch_size = 64;
  int64_t limit = 0;  ///< the first N training images; 0: all
  double momentum = 0.9;
  double weight_decay = 1e-4;
  int64_t seed = 0;  ///< of initial values and shuffling
  int64_t threads = 0;
  std::string backend = "cpu";
};

struct StepResult {
  double loss = 0;  ///< mean over the batch, before the update
  double top1 = 0;
};

class Specimen {
 public:
  /// `data` must outlive it. Its values are the initial ones of the seed. Throws UserError as find_model does, and when
  /// the data has fewer images than a batch.
  Specimen(const Dataset& data, const SpecimenOptions& options);

  const ModelSpec& spec() const { return spec_; }
  const ModelOptions& model_options() const { return options_.model_options; }
  /// [N,C,H,W] of a training batch.
  Shape images() const { return {options_.batch_size, spec_.input[0], spec_.input[1], spec_.input[2]}; }

  /// Compiles the training step, if it is not yet.
  void prepare_step();
  /// One SGD step on the next batch; batches are whole and follow the seed's order.
  StepResult train_step(double lr);
  /// Compiles `graph` over this net's values.
  Program& compile(std::unique_ptr<Graph> graph);
  /// Feeds the first batch of the training images, in the order of the file, and runs.
  void run_on_first_batch(Program& program);
  /// Logits [count, classes] of the first `count` images of `data`, batch norm by running statistics.
  Tensor logits(const Dataset& data, int64_t count);

  /// Parameters and statistics by name.
  std::map<std::string, Tensor> values() const;
  void set_value(const std::string& name, const Tensor& value);

  int64_t parameters() const;
  /// What its backend has to warn of since the last call.
  std::vector<std::string> take_warnings() { return session_.backend().take_warnings(); }
  /// Arena, values and packed weights of all programs so far.
  size_t memory_bytes() const;

 private:
  InferenceProgram& inference();

  const Dataset& data_;
  SpecimenOptions options_;
  ModelSpec spec_;
  int64_t threads_;
  Session session_;
  std::vector<StateSpec> states_;
  Program* step_ = nullptr;
  std::optional<Loader> loader_;
  std::optional<InferenceProgram> inference_;
};

}  // namespace resnet
