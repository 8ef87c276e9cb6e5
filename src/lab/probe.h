#pragma once
// Probes: programs that measure a net's gradients at each layer and each residual sum. They are made from the graph of
// any model; no model knows of them.

#include <memory>
#include <string>
#include <vector>

#include "lab/specimen.h"

namespace resnet {

/// A convolution or linear layer, in the order of the forward pass.
struct LayerGradient {
  std::string layer;
  double weight = 0;  ///< L2 norm of the loss's gradient by the layer's weight
  double output = 0;  ///< the same by the layer's output
};

struct LayerGradients {
  double loss = 0;
  std::vector<LayerGradient> layers;

  const LayerGradient& first() const { return layers.front(); }
  /// The last before the classifier: the last of the kind that is repeated.
  const LayerGradient& last() const { return layers[layers.size() - 2]; }
  /// Of the norms by the weights.
  double first_over_last() const { return first().weight / last().weight; }
};

/// Forward, loss and gradients of a training batch of shape `images`, nothing updated. Outputs: loss, and for each
/// convolution and linear layer i, in the order of the forward pass, the L2 norms "weight:i" and "output:i".
/// `layers` receives the layers' names.
std::unique_ptr<Graph> make_layer_probe(const ModelSpec& model, const ModelOptions& options, const Shape& images,
                                        std::vector<std::string>& layers);

/// Measures `net` on the first batch of its data, whenever it is asked to.
class LayerProbe {
 public:
  explicit LayerProbe(Specimen& net);
  LayerGradients measure();

 private:
  Specimen& net_;
  std::vector<std::string> layers_;
  Program* program_;
};

/// y = shortcut(x) + branch(x): a sum both of whose terms come from one value.
struct ResidualSum {
  Value sum;
  Value shortcut;
  Value branch;  ///< the term with more nodes between it and `fork`
  Value fork;    ///< x: the last value that both terms depend on
};

/// The residual sums of a forward graph, first to last: every `add` whose terms both depend on `input`.
std::vector<ResidualSum> residual_sums(Graph& graph, Value input);

/// What was measured at one residual sum. Gradients are the loss's, by the block's input x.
struct BlockGradient {
  double shortcut = 0;       ///< L2 norm of the part through the shortcut
  double branch = 0;         ///< of the part through the branch
  double total = 0;          ///< of the whole, as backward propagation has it
  double largest_total = 0;  ///< largest magnitude in the whole
  double largest_gap = 0;    ///< largest magnitude of shortcut + branch - whole
  double branch_share = 0;   ///< |branch(x)| / |shortcut(x)|, of the values themselves
};

class BlockProbe {
 public:
  explicit BlockProbe(Specimen& net);
  std::vector<BlockGradient> measure();

 private:
  Specimen& net_;
  size_t blocks_ = 0;
  Program* program_;
};

}  // namespace resnet
