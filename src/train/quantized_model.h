#pragma once
// A model whose convolutions compute in 8 bits, as its file holds it: which layers, and how the numbers that the
// program runs with follow from the file's.

#include <map>
#include <set>
#include <string>
#include <vector>

#include "formats/weights.h"
#include "models/registry.h"
#include "passes/quantize_graph.h"

namespace resnet {

/// What a model file's metadata say of its quantisation, and of the images that it is for.
struct Quantization {
  std::set<std::string> layers;  ///< the convolutions in 8 bits; the others are in f32
  std::string method;            ///< how scales were found, for people
  int64_t images = 0;            ///< that they were found with
  std::vector<float> mean, std;  ///< the preprocessing's, one for each channel
};

/// The metadata's key; a file that has it is a quantised one.
inline constexpr const char* kQuantizationKey = "quantization";

/// Throws UserError (refused) when the file holds a quantised model: for what needs weights in f32.
void require_not_quantized(const WeightsFile& file);

/// {"scheme": "int8", "layers": [...], "method": ..., "images": ...}
std::string to_json(const Quantization& quantization);
/// Throws bad_data naming the key. `mean` and `std` may be empty, for 0 and 1.
Quantization parse_quantization(const std::string& path, const std::string& text, int64_t channels,
                                const std::vector<float>& mean, const std::vector<float>& std);

/// The tensors of a quantised model's file by name. Throws UserError (bad_data) for layers the architecture lacks.
std::map<std::string, TensorType> quantized_tensors(const ModelSpec& model, const ModelOptions& options,
                                                    const Quantization& quantization);
/// Throws UserError (bad_data) naming the first tensors that are missing, unexpected, or of another shape or dtype.
/// Reads none.
void require_quantized_fit(const WeightsFile& file, const std::map<std::string, TensorType>& tensors);
/// The file's tensors. Throws as require_quantized_fit, and bad_data naming the tensor when a scale is not finite and
/// above 0, or another number is not finite.
std::map<std::string, Tensor> read_quantized(const WeightsFile& file, const std::map<std::string, TensorType>& tensors);

/// A derived state's value, computed in double and rounded.
Tensor derive(const DerivedState& state, const std::map<std::string, Tensor>& tensors,
              const Quantization& quantization);

}  // namespace resnet
