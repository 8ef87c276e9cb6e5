#pragma once
// How good a classifier is: loss, top-1, top-5, and per class precision, recall, F1.

#include <functional>
#include <string>
#include <vector>

#include "data/loader.h"
#include "train/inference.h"

namespace resnet {

struct ClassScore {
  std::string name;
  double precision = 0, recall = 0, f1 = 0;
  int64_t support = 0;
};

struct Evaluation {
  int64_t images = 0;
  int64_t skipped = 0;  ///< images left out because they could not be read
  double loss = 0;      ///< mean cross-entropy
  double top1 = 0, top5 = 0;
  std::vector<ClassScore> per_class;
  std::vector<std::vector<int64_t>> confusion;  ///< [true][predicted]
};

/// Collects logits batch by batch. NaN logits are ranked last and count as wrong.
class Evaluator {
 public:
  explicit Evaluator(std::vector<std::string> class_names);
  /// logits [n,K], labels [n].
  void add(const Tensor& logits, std::span<const int32_t> labels);
  Evaluation result() const;

 private:
  std::vector<std::string> class_names_;
  Evaluation sums_;
};

/// Runs `program` over all of `dataset` (or its first `limit` images). `progress` hears (done, total); when it
/// returns false the evaluation stops and what came so far is the result. on_bad_sample: stop or leave_out.
Evaluation evaluate(InferenceProgram& program, const Dataset& dataset, const Preprocessing& preprocessing, int workers,
                    int64_t limit, const std::function<bool(int64_t, int64_t)>& progress = {},
                    BadSample on_bad_sample = BadSample::stop);

/// log softmax of one row in double; shared by evaluation and prediction.
std::vector<double> softmax(std::span<const double> logits);

}  // namespace resnet
