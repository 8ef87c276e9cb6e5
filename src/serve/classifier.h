#pragma once
// A model file made ready to classify images: the one way from pixels to classes behind `resnet predict`, the
// installed library and the server.

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/preprocess.h"
#include "runtime/backends.h"
#include "train/inference.h"
#include "train/model_file.h"

namespace resnet {

struct ClassifierOptions {
  int threads = 0;              ///< that compute; 0: all CPUs this process may use
  int64_t max_batch = 32;       ///< images in the largest compiled program; more are computed one batch after the other
  std::string backend = "cpu";  ///< or "reference"
  /// Take this machine's fastest algorithms, measuring what its cache does not know (seconds, once for a machine): more
  /// images a second. Without it the usual ones, at once (AlgorithmChoice): the sooner first answer.
  bool measure = false;
  /// Images that will come, where that is known: so few of a small network are done before anything is measured, and
  /// `measure` is ignored for less than 0.9 TFLOP (256 images of ResNet-18). 0: many.
  int64_t expected_images = 0;
  PlanProgress progress = {};  ///< called while algorithms are measured
  /// Of convolutions, precision_of() the model; f16 needs the cpu backend and AVX512-FP16.
  std::optional<Precision> precision = {};
};

/// One of the best classes of an image.
struct Prediction {
  int64_t index = 0;
  std::string name;
  double probability = 0;
};

/// One thread at a time may use a Classifier; several of them may be used by several threads at once.
class Classifier {
 public:
  /// Reads the model, or what a start before left of it in the cache (RESNET_WEIGHTS_CACHE_MIB), and compiles the
  /// program for one image; with `measure` those for all numbers of images, so that the weights are kept only in the
  /// forms in which they are read, and images that gain nothing from going through the network together (micro-batches)
  /// do not. Throws bad_data (3) or an io error (4) for the file, UserError for an option (2), also when a model in
  /// double meets the cpu backend, ResourceError (5) for memory.
  explicit Classifier(const std::string& model_path, const ClassifierOptions& options = {});
  Classifier(LoadedModel model, const ClassifierOptions& options);
  /// Leaves the weights in the cache for the next start, where that was not done yet.
  ~Classifier();
  Classifier(const Classifier&) = delete;
  Classifier& operator=(const Classifier&) = delete;

  const ModelDescription& description() const { return description_; }
  /// What programs take: f32, or f64 for a model in double on the reference backend.
  DType input_dtype() const { return dtype_; }
  /// Images of the largest program: as many at a time are computed fastest.
  int64_t max_batch() const { return batches_.back(); }
  /// Compute threads.
  int threads() const { return threads_; }

  /// Images of any sizes, of the model's channels, preprocessed as the model file says -> f32 [n, classes]. No images
  /// give [0, classes]. Throws UserError naming an image of other channels or of a side outside 1..kMaxImageSide.
  Tensor logits(std::span<const ImageView> images);
  /// The same for images that are preprocessed already: [n, channels, S, S] of input_dtype().
  Tensor logits(const Tensor& inputs);

  /// The `k` most probable of one image's classes, k cut to their number, by falling logit, then by index.
  /// The probabilities are the softmax in double; a NaN counts as the least logit there is, and has probability 0.
  /// Throws UserError when k < 1.
  static std::vector<Prediction> top_k(std::span<const float> logits, int64_t k,
                                       const std::vector<std::string>& class_names);

  /// What went wrong without stopping anything (the cache cannot be written), for the user to hear once.
  std::vector<std::string> take_warnings() { return session_.backend().take_warnings(); }

  /// InferenceProgram::weights_origin().
  const std::string& weights_origin() const { return programs_.at(1)->weights_origin(); }

  /// The batch sizes with a compiled program, in order of size.
  std::vector<int64_t> compiled_batches() const;

 private:
  Classifier(std::shared_ptr<const OpenModel> model, const ClassifierOptions& options);
  /// Programs without weights.
  Classifier(ModelDescription description, std::optional<Quantization> quantization, DType dtype,
             const ClassifierOptions& options);
  KeepStates kept_states();
  InferenceOptions inference_options(int64_t batch) const;
  void require_image(const ImageView& image, size_t index) const;
  InferenceProgram& program(int64_t batch);
  int64_t best_batch(int64_t remaining) const;
  /// Calls run(first, count, program) for parts that together are `n` images.
  template <class F>
  void in_batches(int64_t n, F&& run);

  ModelDescription description_;
  ModelSpec spec_;
  std::optional<Quantization> quantization_;
  DType dtype_;
  int threads_;
  MicroBatch together_;           ///< the largest batch, the only one that may be in streams
  bool save_memory_ = false;      ///< whether the largest batch is a part of `max_batch` for memory's sake
  std::vector<int64_t> batches_;  ///< that may be compiled, in order of size
  Session session_;
  PlanProgress progress_;
  std::map<int64_t, std::unique_ptr<InferenceProgram>> programs_;  ///< by batch; all read the same weights
  bool answered_ = false;
  PreprocessScratch scratch_;
};

}  // namespace resnet
