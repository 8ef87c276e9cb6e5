#pragma once
// From an inference graph in f32 to one that computes its convolutions in 8 bits.

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace resnet {

/// Where the numbers of an 8-bit value come from: x = (q - zero) * scale.
struct ActivationScale {
  enum class Kind {
    output,  ///< a quantised convolution's result: tensor NAME.output_scale; zero is 0
    value,   ///< rounded from f32: tensors NAME.value_scale and NAME.value_zero
    pixels,  ///< the network's images: the 8-bit pixels themselves, which the preprocessing's mean and std give back
  };
  Kind kind = Kind::output;
  std::string name;
  DType dtype = DType::u8;
  bool operator==(const ActivationScale&) const = default;
};

/// A state of the quantised graph that is no tensor of the model file but follows from them; see ops/quantized_conv2d.h
/// and ops/quantize.h for the formulas.
struct DerivedState {
  enum class Kind { multiplier, offset, padding, residual_multiplier, factor, zeros, scale, zero };
  Kind kind = Kind::multiplier;
  std::string state;
  TensorType type;
  std::string layer;                        ///< of the first four: the convolution
  ActivationScale of;                       ///< its input, or the value that is rounded or widened
  std::optional<ActivationScale> residual;  ///< of the convolution
};

struct QuantizedGraph {
  std::unique_ptr<Graph> graph;
  /// The tensors that the graph's states are, or follow from: of a quantised convolution NAME its NAME.weight (i8),
  /// NAME.weight_scale and NAME.bias (f32, per channel) and NAME.output_scale; scales of values that are rounded from
  /// f32; and the f32 parameters of everything else, a convolution's as NAME.weight and NAME.bias.
  std::map<std::string, TensorType> tensors;
  std::vector<DerivedState> derived;
};

/// A name for each live node's first result: the node's own; where it has none, the op's and that of its first input,
/// as add@layer1.0.se; with a number behind it when another has it too.
std::map<int32_t, std::string> value_names(const Graph& graph);

/// The convolutions that can be computed in 8 bits, in the order of work: weights that are states, at most
/// kMostQuantizedTaps taps, and not on the far side of a global pooling, where they cost nothing and decide much
/// (gates, a last layer of 1x1).
std::vector<std::string> quantizable_layers(const Graph& graph);

enum class QuantizeMode {
  whole,     ///< values stay in 8 bits from one quantised op to the next: the graph to run
  isolated,  ///< everything is computed in f32, and each quantised convolution beside it from its rounded inputs:
             ///< outputs "f32:NAME" and "int8:NAME", to see what each convolution alone loses
};

/// conv2d(x, w, b, residual?) of `layers`   ==>   quantized_conv2d, u8 behind a ReLU and i8 elsewhere
/// max_pool, global_avg_pool of 8-bit values ==>  their quantised forms
/// Everything else stays in f32, between dequantize and quantize. The network's images become 8-bit pixels again where
/// a quantised convolution reads them. Needs: an inference graph in f32 after fold_batch_norm and
/// fuse_convolution_epilogue. Throws UserError (bad_data) for a name in `layers` that is not among
/// quantizable_layers().
QuantizedGraph quantize_graph(const Graph& from, const std::set<std::string>& layers,
                              QuantizeMode mode = QuantizeMode::whole);

/// The values whose scales calibration must find, by name: of each quantizable convolution the input, the residual and
/// the result.
std::map<std::string, Value> calibrated_values(Graph& graph);

}  // namespace resnet
