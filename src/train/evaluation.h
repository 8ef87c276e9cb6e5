#pragma once
// How good a classifier is: loss, top-1, top-5, per class precision, recall, F1, and how far its probabilities can be
// believed.

#include <functional>
#include <optional>
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

/// The images whose best class has a probability in (low, high].
struct CalibrationBin {
  double low = 0, high = 0;
  int64_t images = 0;
  double confidence = 0;  ///< mean probability of the best class
  double accuracy = 0;    ///< share of them for which it is the right one
};

/// Bins of equal width, as in Guo et al. 2017 (arXiv:1706.04599, Sec. 2 and 4).
inline constexpr int kCalibrationBins = 15;

/// How a program's logits compare with a reference program's over the same images (each view counts as one).
struct Agreement {
  int64_t images = 0;
  int64_t same_best = 0;   ///< images of which both name the same class first
  double error = 0;        ///< root mean square of the differences, relative to that of the reference's logits
  double worst_error = 0;  ///< largest difference of a logit, relative to the reference's largest
};

struct Evaluation {
  int64_t images = 0;
  int64_t skipped = 0;  ///< images left out because they could not be read
  double loss = 0;      ///< mean cross-entropy
  double top1 = 0, top5 = 0;
  std::vector<ClassScore> per_class;
  std::vector<std::vector<int64_t>> confusion;  ///< [true][predicted]
  /// Expected calibration error: mean over images of |accuracy - confidence| of their bin; 0 is best, 1 worst.
  double ece = 0;
  std::vector<CalibrationBin> calibration;  ///< kCalibrationBins, from 0 to 1
  std::optional<Agreement> agreement;       ///< with EvaluateOptions::reference
};

/// Collects logits batch by batch. NaN logits are ranked last and count as wrong; an image with one has no
/// probabilities and counts with confidence 0.
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

/// logits [n * views, K] -> f64 [n, K]: log of the mean over an image's views of their softmax, as Krizhevsky et al.
/// 2012 (Sec. 4.1) average predictions. A single view gives the log softmax, which has the same softmax and ranks.
Tensor mean_log_probabilities(const Tensor& logits, int64_t views);

/// Collects an Agreement batch by batch.
class AgreementMeter {
 public:
  /// Both [n,K] and f32; a NaN is no class's best logit.
  void add(const Tensor& logits, const Tensor& reference);
  Agreement result() const;

 private:
  Agreement counts_;
  double squared_error_ = 0, squared_reference_ = 0, largest_error_ = 0, largest_reference_ = 0;
};

struct EvaluateOptions {
  int workers = 1;                                 ///< threads that prepare batches ahead
  int64_t limit = 0;                               ///< of images; 0: all
  Views views = Views::one;                        ///< more than one: probabilities are averaged over them
  BadSample on_bad_sample = BadSample::stop;       ///< or leave_out: counted as skipped
  std::function<bool(int64_t, int64_t)> progress;  ///< hears (done, total); false stops, what came so far is the result
  InferenceProgram* reference = nullptr;           ///< of the same batch and dtype: to be compared with
};

/// Runs `program`, whose batch holds an image's views at least, over `dataset`.
Evaluation evaluate(InferenceProgram& program, const Dataset& dataset, const Preprocessing& preprocessing,
                    const EvaluateOptions& options);

/// Makes the folder that write_plots() writes to, if there is none. Throws ResourceError io.
void make_plots_folder(const std::string& directory);

/// Writes DIR/confusion.svg and DIR/reliability.svg, making DIR if there is none.
void write_plots(const Evaluation& evaluation, const std::string& directory);

/// Softmax of one row in double; shared by evaluation and prediction.
std::vector<double> softmax(std::span<const double> logits);

}  // namespace resnet
