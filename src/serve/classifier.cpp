#include "serve/classifier.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>

#include "train/evaluation.h"

namespace resnet {
namespace {

constexpr int64_t kLargestBatch = 65536;

/// 1, 4, 16, ... and `max_batch`: any number of images is a few runs, and the programs are few, as each holds its
/// packed weights.
std::vector<int64_t> batch_sizes(int64_t max_batch) {
  std::vector<int64_t> sizes;
  for (int64_t size = 1; size < max_batch; size *= 4) sizes.push_back(size);
  sizes.push_back(max_batch);
  return sizes;
}

int threads_of(const ClassifierOptions& options) {
  if (options.max_batch < 1 || options.max_batch > kLargestBatch)
    throw UserError("max_batch: {}; expected 1 to {} images", options.max_batch, kLargestBatch);
  return compute_threads(options.threads);
}

/// Images from `first` on, at least of one element, as no images still have a shape.
Tensor rows_of(const Tensor& inputs, int64_t first, int64_t count) {
  const Shape& s = inputs.shape();
  Tensor rows(inputs.dtype(), Shape{count, s[1], s[2], s[3]});
  const size_t row_bytes = rows.size_bytes() / static_cast<size_t>(count);
  std::memcpy(rows.data(), inputs.data() + static_cast<size_t>(first) * row_bytes, rows.size_bytes());
  return rows;
}

/// Logits of a part into their place in f32 [n, classes].
void put_rows(const Tensor& part, int64_t first, Tensor& all) {
  const Tensor rows = convert(part, DType::f32);
  const size_t row_bytes = rows.size_bytes() / static_cast<size_t>(rows.shape()[0]);
  std::memcpy(all.data() + static_cast<size_t>(first) * row_bytes, rows.data(), rows.size_bytes());
}

bool worth_measuring(const ClassifierOptions& options, const ModelDescription& d) {
  if (!options.measure || options.expected_images == 0) return options.measure;
  constexpr double kLeastFlops = 0.9e12;
  const int64_t size = d.preprocessing.image_size;
  const InferenceOptions one{.model = d.options, .images = {1, d.channels, size, size}, .passes = {}};
  return static_cast<double>(options.expected_images) * inference_flops(find_model(d.architecture), one) >= kLeastFlops;
}

/// Another precision than the model has, and what a damaged quantised file holds, are said before kernels are measured.
ModelDescription checked(const OpenModel& model, const ClassifierOptions& options) {
  precision_of(options.precision, model.quantization().has_value());
  if (model.quantization() && worth_measuring(options, model.description())) model.values();
  return model.description();
}

}  // namespace

Classifier::Classifier(const std::string& model_path, const ClassifierOptions& options)
    : Classifier(std::make_shared<const OpenModel>(model_path), options) {}

Classifier::Classifier(std::shared_ptr<const OpenModel> model, const ClassifierOptions& options)
    : Classifier(checked(*model, options), model->quantization(), model->dtype(), options) {
  const WeightsCache cache = WeightsCache::from_environment(threads_);
  program(1).load(std::move(model), cache, kept_states());
}

Classifier::Classifier(LoadedModel model, const ClassifierOptions& options)
    : Classifier(std::move(model.description), std::move(model.quantization), model.dtype, options) {
  program(1).load(std::move(model.values), kept_states());
}

Classifier::Classifier(ModelDescription description, std::optional<Quantization> quantization, DType dtype,
                       const ClassifierOptions& options)
    : description_(std::move(description)),
      spec_(find_model(description_.architecture)),
      quantization_(std::move(quantization)),
      dtype_(dtype),
      threads_(threads_of(options)),
      session_(make_backend(options.backend, threads_,
                            worth_measuring(options, description_) ? AlgorithmChoice::measured : AlgorithmChoice::usual,
                            precision_of(options.precision, quantization_.has_value()))),
      progress_(options.progress) {
  if (dtype_ == DType::f64 && options.backend == "cpu")
    throw UserError("{}: f64 weights; the cpu backend computes in f32; take the backend reference",
                    escape_control(description_.architecture));
  together_ = measure_micro_batch(session_, spec_, inference_options(options.max_batch), progress_);
  save_memory_ = saves_memory(together_.images, options.max_batch);
  batches_ = batch_sizes(together_.images);
  for (const int64_t batch : batches_) {
    if (batch == 1 || session_.backend().measures()) program(batch);
  }
}

/// Weights may be kept in the forms alone that are read once it is known what reads them.
KeepStates Classifier::kept_states() { return session_.backend().measures() ? KeepStates::unpacked : KeepStates::all; }

Classifier::~Classifier() {
  try {
    if (programs_.contains(1)) program(1).keep_for_next_start();
  } catch (const std::exception&) {  // the next start reads the file again
  }
}

InferenceOptions Classifier::inference_options(int64_t batch) const {
  const int64_t size = description_.preprocessing.image_size;
  return {.model = description_.options,
          .dtype = dtype_,
          .images = {batch, description_.channels, size, size},
          .streams = batch == together_.images ? together_.streams : 1,
          .save_memory = save_memory_ && batch > 1,  // one image is wanted soon
          .passes = {},
          .keep_model_states = false,
          .quantization = quantization_ ? &*quantization_ : nullptr};
}

std::vector<int64_t> Classifier::compiled_batches() const {
  std::vector<int64_t> sizes;
  for (const auto& [batch, program] : programs_) sizes.push_back(batch);
  return sizes;
}

InferenceProgram& Classifier::program(int64_t batch) {
  auto& program = programs_[batch];
  if (!program) {
    try {
      program = std::make_unique<InferenceProgram>(session_, spec_, inference_options(batch), progress_);
    } catch (...) {
      programs_.erase(batch);
      throw;
    }
  }
  return *program;
}

/// The largest batch that `remaining` images fill, or the next one where they fill three quarters of it: its few rows
/// of nothing cost less than many small runs.
int64_t Classifier::best_batch(int64_t remaining) const {
  int64_t best = 1;
  for (const int64_t size : batches_) {
    if (remaining >= size - size / 4) best = size;
  }
  return best;
}

template <class F>
void Classifier::in_batches(int64_t n, F&& run) {
  if (n > 0 && std::exchange(answered_, true)) program(1).keep_for_next_start();  // the first answer is out
  for (int64_t first = 0; first < n;) {
    const int64_t batch = best_batch(n - first);
    const int64_t count = std::min(batch, n - first);
    run(first, count, program(batch));
    first += count;
  }
}

void Classifier::require_image(const ImageView& image, size_t index) const {
  if (image.channels != description_.channels)
    throw UserError("image {}: {} channels; the model wants {}; decode it to as many", index, image.channels,
                    description_.channels);
  if (image.height < 1 || image.width < 1 || image.height > kMaxImageSide || image.width > kMaxImageSide)
    throw UserError("image {}: {}x{} pixels; expected sides of 1 to {}", index, image.width, image.height,
                    kMaxImageSide);
  const auto pixels = static_cast<size_t>(image.channels * image.height * image.width);
  if (image.pixels.size() != pixels)
    throw UserError("image {}: {} bytes; expected {} for {}x{} pixels of {} channels", index, image.pixels.size(),
                    pixels, image.width, image.height, image.channels);
}

Tensor Classifier::logits(std::span<const ImageView> images) {
  for (size_t i = 0; i < images.size(); ++i) require_image(images[i], i);
  const auto n = static_cast<int64_t>(images.size());
  const int64_t size = description_.preprocessing.image_size;
  const int64_t elements = description_.channels * size * size;
  Tensor all(DType::f32, Shape{n, static_cast<int64_t>(description_.class_names.size())});
  in_batches(n, [&](int64_t first, int64_t count, InferenceProgram& program) {
    Tensor inputs(dtype_, Shape{count, description_.channels, size, size});
    with_float(dtype_, [&](auto tag) {
      const auto values = inputs.as<decltype(tag)>();
      for (int64_t i = 0; i < count; ++i) {
        preprocess(images[static_cast<size_t>(first + i)], description_.preprocessing, scratch_,
                   values.subspan(static_cast<size_t>(i * elements), static_cast<size_t>(elements)));
      }
    });
    put_rows(program.run(inputs), first, all);
  });
  return all;
}

Tensor Classifier::logits(const Tensor& inputs) {
  const int64_t size = description_.preprocessing.image_size;
  const Shape& s = inputs.shape();
  if (inputs.dtype() != dtype_ || s.rank() != 4 || s[1] != description_.channels || s[2] != size || s[3] != size)
    throw UserError("images: {}; expected {} [n,{},{},{}]", inputs.type().str(), name_of(dtype_), description_.channels,
                    size, size);
  Tensor all(DType::f32, Shape{s[0], static_cast<int64_t>(description_.class_names.size())});
  in_batches(s[0], [&](int64_t first, int64_t count, InferenceProgram& program) {
    const bool whole = count == s[0];
    put_rows(program.run(whole ? inputs : rows_of(inputs, first, count)), first, all);
  });
  return all;
}

std::vector<Prediction> Classifier::top_k(std::span<const float> logits, int64_t k,
                                          const std::vector<std::string>& class_names) {
  if (k < 1) throw UserError("top-k: {}; expected 1 or more", k);
  check(logits.size() == class_names.size(), "Classifier::top_k: logits and class names differ in number");
  std::vector<double> values(logits.begin(), logits.end());
  for (double& v : values) {
    if (std::isnan(v)) v = -std::numeric_limits<double>::infinity();
  }
  std::vector<int64_t> order(values.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  const auto kept = order.begin() + static_cast<std::ptrdiff_t>(std::min<size_t>(static_cast<size_t>(k), order.size()));
  const auto value = [&](int64_t index) { return values[static_cast<size_t>(index)]; };
  std::partial_sort(order.begin(), kept, order.end(),
                    [&](int64_t a, int64_t b) { return value(a) != value(b) ? value(a) > value(b) : a < b; });
  const bool any_number = !order.empty() && std::isfinite(value(order[0]));
  const std::vector<double> probabilities = any_number ? softmax(values) : std::vector<double>(values.size(), 0.0);
  std::vector<Prediction> best;
  for (auto at = order.begin(); at != kept; ++at) {
    const auto index = static_cast<size_t>(*at);
    best.push_back({.index = *at, .name = class_names[index], .probability = probabilities[index]});
  }
  return best;
}

}  // namespace resnet
