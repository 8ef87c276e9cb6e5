#pragma once
// A name path into one model under construction. Paths are the checkpoint's keys, so loading weights
// needs no map and nothing depends on the order in which layers are made.

#include <string>
#include <vector>

#include "graph/graph.h"

namespace resnet {

/// A running statistic that the training step must update: running = average of running and batch.
struct RunningStatistic {
  Value running;
  Value batch;
  double momentum = 0.1;
  double scale = 1;  ///< n / (n - 1) makes a biased variance unbiased
};

/// A branch of stochastic depth: the graph's input `input`, [N], that each image's branch is multiplied by in training.
struct DropPath {
  std::string input;
  double rate = 0;  ///< probability of a branch being dropped
};

/// What a model function builds into.
struct ModelBuilder {
  Graph& graph;
  DType dtype = DType::f32;
  bool training = false;
  std::vector<RunningStatistic> statistics;  ///< filled by batch_norm in training
  std::vector<DropPath> drop_paths = {};     ///< filled by drop_path in training
};

class Scope {
 public:
  explicit Scope(ModelBuilder& builder, std::string path = {}) : builder_(&builder), path_(std::move(path)) {}

  /// The path one level down: (s / "layer1" / 0 / "conv1").path() is "layer1.0.conv1".
  Scope operator/(const std::string& name) const { return Scope(*builder_, path_.empty() ? name : path_ + "." + name); }
  Scope operator/(int64_t index) const { return *this / std::to_string(index); }

  const std::string& path() const { return path_; }
  ModelBuilder& builder() const { return *builder_; }
  Graph& graph() const { return builder_->graph; }
  bool training() const { return builder_->training; }

  /// A trained tensor `path.name`.
  Value parameter(const std::string& name, Shape shape, Initializer initializer) const {
    return graph().state((*this / name).path(), {builder_->dtype, std::move(shape)}, initializer, true);
  }
  /// A tensor that persists but is not trained, such as a running mean.
  Value buffer(const std::string& name, Shape shape, double value) const {
    return graph().state((*this / name).path(), {builder_->dtype, std::move(shape)},
                         {Initializer::Kind::constant, value}, false);
  }

 private:
  ModelBuilder* builder_;
  std::string path_;
};

}  // namespace resnet
