#pragma once
// The passes in order. After each one the graph is verified; names in `disabled` are left out.

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "passes/fold_batch_norm.h"
#include "passes/pass.h"

namespace resnet {

struct PassOptions {
  std::set<std::string> disabled;
  /// Called after each pass that ran: (name, report, seconds, graph).
  std::function<void(const std::string&, const PassReport&, double, const Graph&)> observer;
};

/// Names of all passes, for --disable-pass and its error message.
std::vector<std::string> pass_names();

/// The same options for a graph that quantize_graph() is to rewrite: it knows convolutions and pools each alone.
PassOptions before_quantization(PassOptions options = {});

/// The forward graph of training, before gradients are taken.
void run_forward_passes(Graph& graph, const PassOptions& options);
/// The whole training graph, with gradients and updates.
void run_training_passes(Graph& graph, const PassOptions& options);
/// An inference graph. Returns the convolutions whose states the caller must set.
std::vector<FoldedConvolution> run_inference_passes(Graph& graph, const PassOptions& options);

}  // namespace resnet
