#include "train/evaluation.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>

#include "formats/file_io.h"
#include "plot/chart.h"
#include "plot/heatmap.h"

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
  for (int i = 0; i < kCalibrationBins; ++i) {
    sums_.calibration.push_back({.low = i / double{kCalibrationBins}, .high = (i + 1) / double{kCalibrationBins}});
  }
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
    const double confidence = std::isfinite(sum) ? 1 / sum : 0;  // exp(largest - largest) over the sum
    const double place = std::ceil(confidence * kCalibrationBins) - 1;
    CalibrationBin& bin = sums_.calibration[static_cast<size_t>(std::clamp(place, 0.0, kCalibrationBins - 1.0))];
    ++bin.images;
    bin.confidence += confidence;
    bin.accuracy += ranked && best == label;
    ++sums_.images;
  }
}

Evaluation Evaluator::result() const {
  Evaluation e = sums_;
  const double n = static_cast<double>(std::max<int64_t>(e.images, 1));
  e.loss /= n;
  e.top1 /= n;
  e.top5 /= n;
  for (CalibrationBin& bin : e.calibration) {
    if (bin.images == 0) continue;
    bin.confidence /= static_cast<double>(bin.images);
    bin.accuracy /= static_cast<double>(bin.images);
    e.ece += static_cast<double>(bin.images) / n * std::abs(bin.accuracy - bin.confidence);
  }
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

void AgreementMeter::add(const Tensor& logits, const Tensor& reference) {
  check(logits.shape() == reference.shape(), "AgreementMeter: logits of two shapes");
  const auto classes = static_cast<size_t>(logits.shape()[1]);
  const Tensor ours = convert(logits, DType::f64), theirs = convert(reference, DType::f64);
  const auto best = [](std::span<const double> row) {
    size_t k = 0;
    for (size_t i = 1; i < row.size(); ++i) {
      if (row[i] > row[k] || std::isnan(row[k])) k = i;
    }
    return k;
  };
  for (size_t n = 0; n < static_cast<size_t>(logits.shape()[0]); ++n) {
    const auto a = ours.as<double>().subspan(n * classes, classes);
    const auto b = theirs.as<double>().subspan(n * classes, classes);
    ++counts_.images;
    counts_.same_best += best(a) == best(b);
    for (size_t k = 0; k < classes; ++k) {
      squared_error_ += (a[k] - b[k]) * (a[k] - b[k]);
      squared_reference_ += b[k] * b[k];
      const double error = std::abs(a[k] - b[k]);
      if (!(error <= largest_error_) && !std::isnan(largest_error_)) largest_error_ = error;  // a NaN stays
      largest_reference_ = std::max(largest_reference_, std::abs(b[k]));
    }
  }
}

Agreement AgreementMeter::result() const {
  Agreement a = counts_;
  // A NaN anywhere, or logits that are all zero, give a NaN or an infinity, which is what is to be known.
  a.error = squared_error_ == 0 ? 0 : std::sqrt(squared_error_ / squared_reference_);
  a.worst_error = largest_error_ == 0 ? 0 : largest_error_ / largest_reference_;
  return a;
}

Tensor mean_log_probabilities(const Tensor& logits, int64_t views) {
  const int64_t rows = logits.shape()[0];
  const int64_t classes = logits.shape()[1];
  check(views >= 1 && rows % views == 0, "mean_log_probabilities: rows that are no whole images");
  const Tensor values = convert(logits, DType::f64);
  Tensor mean(DType::f64, Shape{rows / views, classes});
  const auto width = static_cast<size_t>(classes);
  const auto log_of_sum = [](std::span<const double> logs) {  // log(sum(exp(logs))), without overflow
    const double largest = *std::max_element(logs.begin(), logs.end());
    double sum = 0;
    for (const double v : logs) sum += std::exp(v - largest);
    return largest + std::log(sum);
  };
  std::vector<double> of_views(static_cast<size_t>(views));
  std::vector<double> totals(static_cast<size_t>(views));
  for (size_t n = 0; n < static_cast<size_t>(rows / views); ++n) {
    const auto of_image = values.as<double>().subspan(n * of_views.size() * width, of_views.size() * width);
    for (size_t v = 0; v < totals.size(); ++v) totals[v] = log_of_sum(of_image.subspan(v * width, width));
    for (size_t k = 0; k < width; ++k) {
      for (size_t v = 0; v < totals.size(); ++v) of_views[v] = of_image[v * width + k] - totals[v];
      mean.as<double>()[n * width + k] = log_of_sum(of_views) - std::log(static_cast<double>(views));
    }
  }
  return mean;
}

Evaluation evaluate(InferenceProgram& program, const Dataset& dataset, const Preprocessing& preprocessing,
                    const EvaluateOptions& options) {
  const auto views = static_cast<int64_t>(list_of(options.views).size());
  check(program.batch_size() >= views, "evaluate: a program whose batch is smaller than an image's views");
  Evaluator evaluator(dataset.class_names);
  AgreementMeter agreement;
  Loader loader(dataset, {.batch_size = program.batch_size() / views,
                          .shuffle = false,
                          .limit = options.limit,
                          .dtype = program.dtype(),
                          .workers = options.workers,
                          .preprocessing = preprocessing,
                          .views = options.views,
                          .on_bad_sample = options.on_bad_sample});
  int64_t done = 0;
  int64_t skipped = 0;
  while (const Batch* batch = loader.next()) {
    if (batch->size() > 0) {
      const Tensor logits = program.run(batch->images);
      if (options.reference) agreement.add(logits, options.reference->run(batch->images));
      evaluator.add(views == 1 ? logits : mean_log_probabilities(logits, views), batch->labels);
    }
    skipped += static_cast<int64_t>(batch->bad.size());
    done += batch->size() + static_cast<int64_t>(batch->bad.size());
    if (options.progress && !options.progress(done, loader.samples_per_epoch())) break;
  }
  Evaluation result = evaluator.result();
  result.skipped = skipped;
  if (options.reference) result.agreement = agreement.result();
  return result;
}

namespace {

/// Accuracy over confidence, and below it how many images each confidence has: steps, a bin each.
std::string reliability_svg(const Evaluation& e) {
  Series perfect{.name = "perfect", .x = {0, 1}, .y = {0, 1}};
  Series accuracy{.name = "accuracy"};
  Series share{.name = "share"};
  for (const CalibrationBin& bin : e.calibration) {
    for (const double x : {bin.low, bin.high}) {
      accuracy.x.push_back(x);
      accuracy.y.push_back(bin.images > 0 ? bin.accuracy : std::numeric_limits<double>::quiet_NaN());
      // The gap that the error counts: from the accuracy to the confidence.
      accuracy.low.push_back(std::min(bin.accuracy, bin.confidence));
      accuracy.high.push_back(std::max(bin.accuracy, bin.confidence));
      share.x.push_back(x);
      share.y.push_back(static_cast<double>(bin.images) / static_cast<double>(std::max<int64_t>(e.images, 1)));
    }
  }
  return render_svg({{.title = fmt::format("Reliability: expected calibration error {:.4f}", e.ece),
                      .x_label = "confidence: probability of the best class",
                      .y_label = "share of right answers; shaded to the mean confidence",
                      .series = {perfect, accuracy}},
                     {.title = fmt::format("{} images", e.images),
                      .x_label = "confidence: probability of the best class",
                      .y_label = "share of images",
                      .series = {share}}});
}

}  // namespace

void make_plots_folder(const std::string& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) throw io_error(escape_control(directory), "make the folder for the pictures", error.value());
}

void write_plots(const Evaluation& evaluation, const std::string& directory) {
  make_plots_folder(directory);
  Heatmap heatmap{
      .title = fmt::format("Confusion matrix: {} images, top-1 {:.2f} %", evaluation.images, 100 * evaluation.top1),
      .row_label = "Rows: the true class",
      .column_label = "Columns: the predicted class",
      .counts = evaluation.confusion};
  for (const ClassScore& score : evaluation.per_class) heatmap.names.push_back(score.name);
  atomic_write_file(directory + "/confusion.svg", render_svg(heatmap));
  atomic_write_file(directory + "/reliability.svg", reliability_svg(evaluation));
}

}  // namespace resnet
