#pragma once
// Post-training quantisation: scales from images, weights rounded to 8 bits, and what each layer loses by it.

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "train/model_file.h"
#include "train/quantized_model.h"

namespace resnet {

/// How an activation's range is cut: what lies outside is clipped, and the finer the steps inside.
enum class ClipMethod {
  minimum_error,  ///< the range whose squared error, of clipping and rounding, is least
  percentile,     ///< the range that holds `percentile` per cent of the values
};

struct QuantizeOptions {
  ClipMethod method = ClipMethod::minimum_error;
  double percentile = 99.99;
  int64_t images = 256;  ///< drawn from all of the data set, the same each time; fewer where it has fewer
  /// A convolution whose result alone has less signal over error, in decibels, stays in f32. 10 dB: the error is a
  /// third of the signal.
  double min_sqnr = 10;
  int threads = 1;
  int workers = 1;
  std::function<void(const std::string& what, int64_t done, int64_t total)> progress = {};
};

/// What a convolution loses when its inputs and weights are rounded and nothing else is.
struct LayerError {
  std::string name;
  double sqnr_db = 0;  ///< 10 log10(mean square of the f32 result / of the difference); may be infinite
  bool quantized = true;
};

struct QuantizedModel {
  Quantization quantization;
  std::map<std::string, Tensor> tensors;  ///< of the file
  std::vector<LayerError> layers;         ///< in the order of work
  int64_t unreadable = 0;                 ///< images that were passed over
  std::string first_unreadable;           ///< the first of them, and what was wrong with it
};

/// Quantises a model in f32. Weights: symmetric, a scale for each filter, found as the one with the least squared
/// error. Activations: a scale for each value, by options.method, from the images (no labels). Biases take up what
/// rounding the weights adds to each filter's mean over the images (Nagel et al. 2019, arXiv:1906.04721, Sec. 4.2). The
/// result is a pure function of the model, the images and the options. Throws UserError (refused) for a model without a
/// convolution, or when every layer's error is too large; (bad_data) when a weight or a layer's results are not finite,
/// or when no image can be read.
QuantizedModel quantize_model(const LoadedModel& model, const Dataset& images, const QuantizeOptions& options);

}  // namespace resnet
