#include "passes/pipeline.h"

#include <chrono>

#include "passes/fuse_batch_norm_tail.h"
#include "passes/fuse_convolution_epilogue.h"
#include "passes/fuse_max_pool.h"
#include "passes/remove_zero_bias_gradient.h"

namespace resnet {
namespace {

struct Pass {
  const char* name;
  std::function<PassReport(Graph&)> run;
};

void run(std::initializer_list<Pass> passes, Graph& graph, const PassOptions& options) {
  for (const Pass& pass : passes) {
    if (options.disabled.contains(pass.name)) continue;
    const auto start = std::chrono::steady_clock::now();
    const PassReport report = pass.run(graph);
    verify(graph);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    if (options.observer) options.observer(pass.name, report, took.count(), graph);
  }
}

}  // namespace

std::vector<std::string> pass_names() {
  return {"fuse_batch_norm_tail", "remove_zero_bias_gradient", "fold_batch_norm", "fuse_convolution_epilogue",
          "fuse_max_pool"};
}

PassOptions before_quantization(PassOptions options) {
  options.disabled.insert("fuse_max_pool");
  return options;
}

void run_forward_passes(Graph& graph, const PassOptions& options) {
  run({{"fuse_batch_norm_tail", fuse_batch_norm_tail}}, graph, options);
}

void run_training_passes(Graph& graph, const PassOptions& options) {
  run({{"remove_zero_bias_gradient", remove_zero_bias_gradient}}, graph, options);
}

std::vector<FoldedConvolution> run_inference_passes(Graph& graph, const PassOptions& options) {
  std::vector<FoldedConvolution> folded;
  run({{"fold_batch_norm", [&](Graph& g) { return fold_batch_norm(g, folded); }},
       {"fuse_convolution_epilogue", fuse_convolution_epilogue},
       {"fuse_max_pool", fuse_max_pool},
       {"fuse_batch_norm_tail", fuse_batch_norm_tail}},
      graph, options);
  return folded;
}

}  // namespace resnet
