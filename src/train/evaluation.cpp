#include "train/evaluation.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace resnet {

std::vector<double> softmax(std::span<const double> logits) {
  double largest = -std::numeric_limits<double>::infinity();
  for (double v : logits) largest = std::max(largest, v);
  std::vector<double> p(logits.size());
  double sum = 0;
  for (size_t i = 0; i < p.size(); ++i) sum += p[i] = std::exp(logits[i] - largest);
  for (double& v : p) v /= sum;
  return p;
}

Evaluator::Evaluator(std::vector<std::string> class_names) : class_names_(std::move(class_names)) {
  sums_.confusion.assign(class_names_.size(), std::vector<int64_t>(class_names_.size(), 0));
}

void Evaluator::add(const Tensor& logits, std::span<const int32_t> labels) {
  const auto classes = static_cast<size_t>(logits.shape()[1]);
  check(classes == class_names_.size(), "Evaluator: logits and class names differ in number");
  const Tensor values = convert(logits, DType::f64);
  for (size_t n = 0; n < labels.size(); ++n) {
    const auto row = values.as<double>().subspan(n * classes, classes);
    const auto label = static_cast<size_t>(labels[n]);
    // Rank of the label: how many logits beat it, earlier ones winning ties (as the first maximum).
    size_t rank = 0;
    size_t best = 0;
    for (size_t k = 0; k < classes; ++k) {
      const bool beats = row[k] > row[label] || (row[k] == row[label] && k < label);
      rank += k != label && beats;
      if (row[k] > row[best] || std::isnan(row[best])) best = k;
    }
    double largest = row[best];
    double sum = 0;
    for (double v : row) sum += std::exp(v - largest);
    sums_.loss += largest + std::log(sum) - row[label];
    const bool ranked = !std::isnan(row[label]);
    sums_.top1 += ranked && rank == 0;
    sums_.top5 += ranked && rank < 5;
    ++sums_.confusion[label][best];
    ++sums_.images;
  }
}

Evaluation Evaluator::result() const {
  Evaluation e = sums_;
  const double n = static_cast<double>(std::max<int64_t>(e.images, 1));
  e.loss /= n;
  e.top1 /= n;
  e.top5 /= n;
  const size_t classes = class_names_.size();
  for (size_t k = 0; k < classes; ++k) {
    int64_t predicted = 0;
    ClassScore score{.name = class_names_[k]};
    for (size_t j = 0; j < classes; ++j) {
      score.support += e.confusion[k][j];
      predicted += e.confusion[j][k];
    }
    const auto hits = static_cast<double>(e.confusion[k][k]);
    score.precision = predicted ? hits / static_cast<double>(predicted) : 0;
    score.recall = score.support ? hits / static_cast<double>(score.support) : 0;
    score.f1 =
        score.precision + score.recall > 0 ? 2 * score.precision * score.recall / (score.precision + score.recall) : 0;
    e.per_class.push_back(score);
  }
  return e;
}

Evaluation evaluate(InferenceProgram& program, const Dataset& dataset, const Preprocessing& preprocessing, int workers,
                    int64_t limit, const std::function<bool(int64_t, int64_t)>& progress, BadSample on_bad_sample) {
  Evaluator evaluator(dataset.class_names);
  Loader loader(dataset, {.batch_size = program.batch_size(),
                          .shuffle = false,
                          .limit = limit,
                          .dtype = program.dtype(),
                          .workers = workers,
                          .preprocessing = preprocessing,
                          .on_bad_sample = on_bad_sample});
  int64_t done = 0;
  int64_t skipped = 0;
  while (const Batch* batch = loader.next()) {
    if (batch->size() > 0) evaluator.add(program.run(batch->images), batch->labels);
    skipped += static_cast<int64_t>(batch->bad.size());
    done += batch->size() + static_cast<int64_t>(batch->bad.size());
    if (progress && !progress(done, loader.samples_per_epoch())) break;
  }
  Evaluation result = evaluator.result();
  result.skipped = skipped;
  return result;
}

}  // namespace resnet
