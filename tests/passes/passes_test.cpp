// Each pass: what it matches, what it leaves alone, that twice equals once, and that results stay.

#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "autodiff/gradients.h"
#include "models/registry.h"
#include "ops/add.h"
#include "ops/batch_norm.h"
#include "ops/channel_sum.h"
#include "ops/conv2d.h"
#include "ops/gradient_check.h"
#include "ops/max_pool.h"
#include "ops/relu.h"
#include "passes/fold_batch_norm.h"
#include "passes/fuse_batch_norm_tail.h"
#include "passes/fuse_convolution_epilogue.h"
#include "passes/fuse_max_pool.h"
#include "passes/pipeline.h"
#include "passes/remove_zero_bias_gradient.h"
#include "runtime/on_backend.h"
#include "train/inference.h"

namespace resnet {
namespace {

using namespace testing;

const Shape kMaps{2, 3, 4, 4};
const Shape kWeight{3, 3, 3, 3};

std::map<std::string, int> ops_of(const Graph& graph) {
  std::map<std::string, int> counts;
  for (int32_t id : graph.live_nodes()) {
    if (graph.node(id).op) ++counts[std::string(graph.node(id).op->name)];
  }
  return counts;
}
using Ops = std::map<std::string, int>;

/// The graph's text without its leaves.
std::string code_of(const Graph& graph) {
  std::istringstream lines(print(graph));
  std::string code;
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("@")) code += line + "\n";
  }
  return code;
}

Value vector_state(Graph& g, const std::string& name) { return g.state(name, f64_type({3}), {}, true); }
Value conv(Graph& g, Value x, const std::string& name, bool bias = true) {
  return conv2d(x, g.state(name + ".weight", f64_type(kWeight), {}, true),
                bias ? vector_state(g, name + ".bias") : Value{}, {.pad = {1, 1}}, name);
}
Value norm(Graph& g, Value x, const std::string& name) {
  return batch_norm_inference(x, vector_state(g, name + ".weight"), vector_state(g, name + ".bias"),
                              vector_state(g, name + ".mean"), vector_state(g, name + ".var"), 1e-5, name);
}
BatchNormResult norm_training(Graph& g, Value x, const std::string& name) {
  return batch_norm_training(x, vector_state(g, name + ".weight"), vector_state(g, name + ".bias"), 1e-5, name);
}

/// A value for every leaf of the graph; those of variances are positive.
Tensors random_leaves(const Graph& graph, uint64_t seed = 1) {
  Rng rng(mix(seed));
  Tensors leaves;
  for (const auto& [name, id] : graph.leaves()) {
    Tensor t = random_tensor(graph.node(id).outputs[0].shape, rng);
    if (name.ends_with("var")) {
      for (double& v : t.as<double>()) v = 0.5 + std::abs(v);
    }
    leaves[name] = t;
  }
  return leaves;
}

/// Expects the same results with and without the pass, on the reference backend, and that twice equals once.
void expect_same_results(const BuildGraph& build, const std::function<PassReport(Graph&)>& pass, int matches) {
  Graph before;
  build(before);
  const Tensors leaves = random_leaves(before);
  const Tensors expected = run_on("reference", 1, build, leaves);
  const Tensors actual = run_on(
      "reference", 1,
      [&](Graph& g) {
        build(g);
        EXPECT_EQ(pass(g).matched, matches);
        verify(g);
        const std::string once = print(g);
        EXPECT_FALSE(pass(g).changed()) << "a second run found more";
        EXPECT_EQ(print(g), once);
      },
      leaves);
  ASSERT_EQ(actual.size(), expected.size());
  for (const auto& [name, tensor] : expected) {
    const std::vector<double> wanted = values<double>(tensor);
    EXPECT_GT(std::count_if(wanted.begin(), wanted.end(), [](double v) { return v != 0; }), 0)
        << name << " is all zeros";
    expect_near(actual.at(name), wanted, 1e-11);
  }
}

/// A residual block's tail in both its forms, training and inference.
void block_training(Graph& g) {
  const Value x = g.input("x", f64_type(kMaps));
  const BatchNormResult first = norm_training(g, x, "bn1");
  const Value y = relu(first.y);
  const BatchNormResult second = norm_training(g, y, "bn2");
  g.set_output("y", relu(second.y + x));
  g.set_output("mean", second.mean);
  g.set_output("var", second.var);
}

TEST(FuseBatchNormTail, FusesBothTailsAndKeepsTheStatistics) {
  Graph g;
  block_training(g);
  EXPECT_EQ(ops_of(g), (Ops{{"batch_norm", 2}, {"relu", 2}, {"add", 1}}));
  EXPECT_EQ(fuse_batch_norm_tail(g).matched, 2);
  EXPECT_EQ(code_of(g),
            "%0 = batch_norm(@x, @bn1.weight, @bn1.bias) training relu -> f64[2x3x4x4], f64[3], f64[3]  # bn1\n"
            "%1 = batch_norm(%0.0, @bn2.weight, @bn2.bias, @x) training residual relu -> f64[2x3x4x4], f64[3], f64[3]  "
            "# bn2\n"
            "output mean = %1.1\noutput var = %1.2\noutput y = %1.0\n");
  expect_same_results(block_training, fuse_batch_norm_tail, 2);
}

TEST(FuseBatchNormTail, FusesTheInferenceForm) {
  expect_same_results(
      [](Graph& g) {
        const Value x = g.input("x", f64_type(kMaps));
        g.set_output("y", relu(x + relu(norm(g, x, "bn"))));
        g.set_output("z", relu(norm(g, x, "bn3") + norm(g, x, "bn4")));
      },
      fuse_batch_norm_tail, 2);
}

TEST(FuseBatchNormTail, LeavesAloneWhatSomebodyElseReads) {
  Graph g;
  const Value x = g.input("x", f64_type(kMaps));
  const Value read_twice = norm_training(g, x, "bn1").y;
  g.set_output("a", relu(read_twice));
  g.set_output("b", read_twice);
  const Value sum = norm_training(g, x, "bn2").y + x;
  g.set_output("c", relu(sum));
  g.set_output("d", sum);
  const Value both = norm_training(g, x, "bn3").y;
  g.set_output("e", relu(both + both));
  const std::string before = print(g);
  const PassReport report = fuse_batch_norm_tail(g);
  EXPECT_EQ(report.matched, 0);
  EXPECT_EQ(report.skipped.size(), 2u);
  EXPECT_EQ(print(g), before);
}

TEST(FuseBatchNormTail, TheFusedGradientsAreTheUnfusedOnes) {
  for (const bool fused : {false, true}) {
    SCOPED_TRACE(fused);
    static Tensors unfused;
    Graph g;
    block_training(g);
    if (fused) {
      EXPECT_EQ(fuse_batch_norm_tail(g).matched, 2);
    }
    const std::pair<Value, Value> seed{g.outputs().at("y"), g.input("dy", f64_type(kMaps))};
    std::vector<Value> wrt;
    std::vector<std::string> names{"x", "bn1.weight", "bn1.bias", "bn2.weight", "bn2.bias"};
    for (const std::string& name : names) wrt.push_back(g.value(g.leaves().at(name)));
    const std::vector<Value> d = gradients(g, std::span(&seed, 1), wrt);
    for (size_t i = 0; i < d.size(); ++i) g.set_output("d" + names[i], d[i]);
    const Tensors out = evaluate(g, random_leaves(g));
    if (!fused) unfused = out;
    for (const auto& [name, tensor] : unfused) expect_near(out.at(name), values<double>(tensor), 1e-11);
  }
}

TEST(RemoveZeroBiasGradient, ReplacesTheSumOfATrainingGradientByZero) {
  const BuildGraph build = [](Graph& g) {
    const Value x = g.input("x", f64_type(kMaps));
    const Value y = norm_training(g, conv(g, x, "conv"), "bn").y;
    const std::pair<Value, Value> seed{y, g.input("dy", f64_type(kMaps))};
    const std::vector<Value> wrt{g.value(g.leaves().at("conv.bias")), g.value(g.leaves().at("conv.weight"))};
    const std::vector<Value> d = gradients(g, std::span(&seed, 1), wrt);
    g.set_output("dbias", d[0]);
    g.set_output("dweight", d[1]);
  };
  Graph g;
  build(g);
  EXPECT_EQ(ops_of(g).at("channel_sum"), 1);
  const Tensors before = evaluate(g, random_leaves(g));
  EXPECT_EQ(remove_zero_bias_gradient(g).matched, 1);
  verify(g);
  EXPECT_EQ(ops_of(g),
            (Ops{{"conv2d", 1}, {"batch_norm", 1}, {"batch_norm_grad", 1}, {"conv2d_weight_grad", 1}, {"fill", 1}}));
  EXPECT_FALSE(remove_zero_bias_gradient(g).changed());
  const Tensors after = evaluate(g, random_leaves(g));
  expect_near(after.at("dbias"), {0, 0, 0}, 0);
  expect_near(before.at("dbias"), {0, 0, 0}, 1e-12);
  EXPECT_EQ(after.at("dweight"), before.at("dweight"));
}

TEST(RemoveZeroBiasGradient, LeavesInferenceStatisticsAlone) {
  Graph g;
  const Value y = norm(g, conv(g, g.input("x", f64_type(kMaps)), "conv"), "bn");
  const std::pair<Value, Value> seed{y, g.input("dy", f64_type(kMaps))};
  const std::vector<Value> wrt{g.value(g.leaves().at("conv.bias"))};
  g.set_output("dbias", gradients(g, std::span(&seed, 1), wrt)[0]);
  const std::string before = print(g);
  const PassReport report = remove_zero_bias_gradient(g);
  EXPECT_EQ(report.matched, 0);
  EXPECT_EQ(report.skipped.at("inference statistics"), 1);
  EXPECT_EQ(print(g), before);
}

TEST(FoldBatchNorm, GivesTheConvolutionNewStatesAndSaysHowTheyFollow) {
  Graph g;
  const Value x = g.input("x", f64_type(kMaps));
  g.set_output("y", norm(g, conv(g, norm(g, conv(g, x, "c1"), "bn1"), "c2", false), "bn2"));
  std::vector<FoldedConvolution> folded;
  EXPECT_EQ(fold_batch_norm(g, folded).matched, 2);
  verify(g);
  EXPECT_EQ(code_of(g),
            "%0 = conv2d(@x, @c1.weight@folded, @c1.weight@folded.bias) pad=1 bias -> f64[2x3x4x4]  # c1\n"
            "%1 = conv2d(%0, @c2.weight@folded, @c2.weight@folded.bias) pad=1 bias -> f64[2x3x4x4]  # c2\n"
            "output y = %1\n");
  ASSERT_EQ(folded.size(), 2u);
  EXPECT_EQ(folded[0].weight, "c1.weight");
  EXPECT_EQ(folded[0].bias, "c1.bias");
  EXPECT_EQ(folded[0].gamma, "bn1.weight");
  EXPECT_EQ(folded[0].variance, "bn1.var");
  EXPECT_EQ(folded[1].bias, "") << "a convolution without bias";
  EXPECT_FALSE(fold_batch_norm(g, folded).changed());
  EXPECT_EQ(folded.size(), 2u);
}

TEST(FoldBatchNorm, LeavesAloneOtherReadersComputedParametersAndSharedWeights) {
  Graph g;
  const Value x = g.input("x", f64_type(kMaps));
  const Value read_twice = conv(g, x, "c1");
  g.set_output("a", norm(g, read_twice, "bn1"));
  g.set_output("b", read_twice);
  const Value fed = batch_norm_inference(conv(g, x, "c2"), g.input("gamma", f64_type({3})), vector_state(g, "beta"),
                                         vector_state(g, "mean"), vector_state(g, "var"), 1e-5);
  g.set_output("c", fed);
  // One weight under two norms has no single folded value.
  g.set_output("d", norm(g, conv(g, x, "c3"), "bn3"));
  g.set_output("e", norm(g, conv(g, relu(x), "c3"), "bn4"));
  const std::string before = print(g);
  std::vector<FoldedConvolution> folded;
  const PassReport report = fold_batch_norm(g, folded);
  EXPECT_EQ(report.matched, 0);
  EXPECT_EQ(report.skipped.at("the convolution has another reader"), 1);
  EXPECT_EQ(report.skipped.at("a parameter is not a state"), 1);
  EXPECT_EQ(report.skipped.at("the weight has another reader"), 2);
  EXPECT_EQ(print(g), before);
}

TEST(FuseConvolutionEpilogue, FusesActivationAndSum) {
  const BuildGraph build = [](Graph& g) {
    const Value x = g.input("x", f64_type(kMaps));
    const Value y = relu(conv(g, x, "c1"));
    g.set_output("y", relu(conv(g, y, "c2") + x));
    g.set_output("z", relu(x + conv(g, y, "c3")));
  };
  Graph g;
  build(g);
  EXPECT_EQ(fuse_convolution_epilogue(g).matched, 3);
  EXPECT_EQ(ops_of(g), (Ops{{"conv2d", 3}}));
  EXPECT_NE(print(g).find("conv2d(@x, @c1.weight, @c1.bias) pad=1 bias relu -> f64[2x3x4x4]  # c1"), std::string::npos)
      << print(g);
  EXPECT_NE(print(g).find("conv2d(%0, @c2.weight, @c2.bias, @x) pad=1 bias residual relu -> f64[2x3x4x4]  # c2"),
            std::string::npos)
      << print(g);
  expect_same_results(build, fuse_convolution_epilogue, 3);
}

TEST(FuseConvolutionEpilogue, OfTwoConvolutionsTheLaterOneTakesTheSum) {
  const BuildGraph build = [](Graph& g) {
    const Value x = g.input("x", f64_type(kMaps));
    const Value shortcut = conv(g, x, "shortcut");
    g.set_output("y", relu(shortcut + conv(g, relu(conv(g, x, "c1")), "c2")));
  };
  Graph g;
  build(g);
  EXPECT_EQ(fuse_convolution_epilogue(g).matched, 2);
  EXPECT_NE(print(g).find("residual relu -> f64[2x3x4x4]  # c2"), std::string::npos) << print(g);
  expect_same_results(build, fuse_convolution_epilogue, 2);
}

TEST(FuseConvolutionEpilogue, LeavesAloneOtherReadersAndConvolutionsWithoutBias) {
  Graph g;
  const Value x = g.input("x", f64_type(kMaps));
  const Value read_twice = conv(g, x, "c1");
  g.set_output("a", relu(read_twice));
  g.set_output("b", read_twice);
  g.set_output("c", relu(conv(g, x, "c2", false)));
  const Value both = conv(g, x, "c3");
  g.set_output("d", relu(both + both));
  const std::string before = print(g);
  EXPECT_EQ(fuse_convolution_epilogue(g).matched, 0);
  EXPECT_EQ(print(g), before);
}

TEST(FuseConvolutionEpilogue, FusesASumThatNoActivationFollows) {
  const BuildGraph build = [](Graph& g) {
    const Value x = g.input("x", f64_type(kMaps));
    const Value first = x + conv(g, x, "c1", false);
    const Value second = conv(g, relu(first), "c2") + first;
    g.set_output("y", second);
  };
  Graph g;
  build(g);
  EXPECT_EQ(fuse_convolution_epilogue(g).matched, 2);
  EXPECT_EQ(ops_of(g), (Ops{{"conv2d", 2}, {"relu", 1}}));
  EXPECT_NE(print(g).find("conv2d(@x, @c1.weight, @x) pad=1 residual ->"), std::string::npos) << print(g);
  expect_same_results(build, fuse_convolution_epilogue, 2);
}

TEST(FuseMaxPool, FusesTheStem) {
  const BuildGraph build = [](Graph& g) {
    const Value x = g.input("x", f64_type(kMaps));
    g.set_output("y", max_pool(relu(conv(g, x, "c1")), {.kernel = {3, 3}, .stride = {2, 2}, .pad = {1, 1}}));
    g.set_output("z", max_pool(conv(g, x, "c2", false), {.kernel = {2, 2}, .stride = {1, 1}}));
  };
  Graph g;
  build(g);
  fuse_convolution_epilogue(g);
  EXPECT_EQ(fuse_max_pool(g).matched, 2);
  EXPECT_EQ(ops_of(g), (Ops{{"conv2d_max_pool", 2}}));
  EXPECT_NE(print(g).find("conv2d_max_pool(@x, @c1.weight, @c1.bias) pad=1 bias relu pool: kernel=3 stride=2 pad=1"),
            std::string::npos)
      << print(g);
  const auto both = [](Graph& graph) {
    PassReport report = fuse_convolution_epilogue(graph);
    report.matched += fuse_max_pool(graph).matched;
    return report;
  };
  expect_same_results(build, both, 3);
}

TEST(FuseMaxPool, LeavesAloneWhatSomebodyElseReads) {
  Graph g;
  const Value x = g.input("x", f64_type(kMaps));
  const PoolAttrs window{.kernel = {2, 2}};
  const Value read_twice = conv(g, x, "c1");
  g.set_output("a", max_pool(read_twice, window));
  g.set_output("b", read_twice);
  const Value indexed = max_pool(conv(g, x, "c2"), window);
  g.set_output("c", indexed);
  g.set_output("d", g.value(indexed.node, 1));
  const std::string before = print(g);
  const PassReport report = fuse_max_pool(g);
  EXPECT_EQ(report.matched, 0);
  EXPECT_EQ(report.skipped.at("the convolution has another reader"), 1);
  EXPECT_EQ(report.skipped.at("the pool's index is read"), 1);
  EXPECT_EQ(print(g), before);
}

std::unique_ptr<Graph> inference_graph(const std::string& model) {
  const ModelSpec& spec = find_model(model);
  return make_inference_graph(spec, {.model = {}, .images = {1, spec.input[0], 64, 64}, .passes = {}});
}

TEST(Pipeline, WholeModelsComeDownToTheExpectedNodes) {
  const std::map<std::string, Ops> expected = {
      {"lecture_resnet18",
       {{"conv2d", 19}, {"conv2d_max_pool", 1}, {"global_avg_pool", 1}, {"reshape", 1}, {"linear", 1}}},
      {"resnet18", {{"conv2d", 19}, {"conv2d_max_pool", 1}, {"global_avg_pool", 1}, {"reshape", 1}, {"linear", 1}}},
      {"resnet50", {{"conv2d", 52}, {"conv2d_max_pool", 1}, {"global_avg_pool", 1}, {"reshape", 1}, {"linear", 1}}}};
  for (const auto& [model, ops] : expected) {
    const auto graph = inference_graph(model);
    const std::vector<FoldedConvolution> folded = run_inference_passes(*graph, {});
    EXPECT_EQ(ops_of(*graph), ops) << model;
    EXPECT_EQ(folded.size(), model == "lecture_resnet18" ? 17u : static_cast<size_t>(ops.at("conv2d")) + 1) << model;
    const std::string once = print(*graph);
    EXPECT_TRUE(run_inference_passes(*graph, {}).empty());
    EXPECT_EQ(print(*graph), once) << model;
  }
}

TEST(Pipeline, TheDeepFamiliesComeDownToTheExpectedNodes) {
  const std::map<std::string, Ops> expected = {
      {"resnet20_cifar_a",
       {{"conv2d", 19}, {"avg_pool", 2}, {"pad_channels", 2}, {"global_avg_pool", 1}, {"reshape", 1}, {"linear", 1}}},
      {"resnet20_cifar_b", {{"conv2d", 21}, {"global_avg_pool", 1}, {"reshape", 1}, {"linear", 1}}},
      {"plain20_cifar", {{"conv2d", 19}, {"global_avg_pool", 1}, {"reshape", 1}, {"linear", 1}}},
      // The norm of a linear layer is not folded: its sum and activation ride on it as in training.
      {"resnet20_mlp", {{"reshape", 1}, {"linear", 20}, {"batch_norm_inference", 19}}},
      {"plain20_mlp", {{"reshape", 1}, {"linear", 20}, {"batch_norm_inference", 19}}}};
  for (const auto& [model, ops] : expected) {
    const auto graph = inference_graph(model);
    const std::vector<FoldedConvolution> folded = run_inference_passes(*graph, {});
    EXPECT_EQ(ops_of(*graph), ops) << model;
    EXPECT_EQ(folded.size(), ops.contains("conv2d") ? static_cast<size_t>(ops.at("conv2d")) : 0u) << model;
    const std::string once = print(*graph);
    EXPECT_TRUE(run_inference_passes(*graph, {}).empty());
    EXPECT_EQ(print(*graph), once) << model;
  }
}

TEST(Pipeline, TimmsAndPreactivationNetsComeDownToTheExpectedNodes) {
  struct Expected {
    Ops ops;
    size_t folded;
  };
  const std::map<std::string, Expected> expected = {
      // Every norm follows a convolution; the averages stay.
      {"resnet50d",
       {{{"conv2d", 54},
         {"avg_pool", 3},
         {"conv2d_max_pool", 1},
         {"global_avg_pool", 1},
         {"reshape", 1},
         {"linear", 1}},
        55}},
      // The gate comes between the last norm and the sum: only a projected shortcut can take that with its relu.
      {"seresnet50",
       {{{"conv2d", 52 + 32},
         {"sigmoid", 16},
         {"scale", 16},
         {"add", 12},
         {"relu", 12},
         {"conv2d_max_pool", 1},
         {"global_avg_pool", 17},
         {"reshape", 1},
         {"linear", 1}},
        53}},
      // norm2 and norm3 follow a convolution that nobody else reads; norm1 follows a sum, and takes its relu. The sums
      // ride on the convolutions before them.
      {"resnetv2_50",
       {{{"conv2d", 53}, {"batch_norm_inference", 17}, {"conv2d_max_pool", 1}, {"global_avg_pool", 1}, {"reshape", 1}},
        32}},
      // The stem's only reader is the first block's norm, as the block projects its shortcut.
      {"wrn16_2_cifar",
       {{{"conv2d", 16}, {"batch_norm_inference", 6}, {"global_avg_pool", 1}, {"reshape", 1}, {"linear", 1}}, 7}}};
  for (const auto& [model, what] : expected) {
    const auto graph = inference_graph(model);
    const std::vector<FoldedConvolution> folded = run_inference_passes(*graph, {});
    EXPECT_EQ(ops_of(*graph), what.ops) << model;
    EXPECT_EQ(folded.size(), what.folded) << model;
    const std::string once = print(*graph);
    EXPECT_TRUE(run_inference_passes(*graph, {}).empty());
    EXPECT_EQ(print(*graph), once) << model;
  }
}

TEST(FuseBatchNormTail, APreactivationsNormTakesItsReluAndNoSum) {
  Graph g;
  ModelBuilder builder{g, DType::f32, true, {}};
  const ModelSpec spec = find_model("preresnet20_cifar");
  g.set_output("y", spec.build(Scope(builder), g.input("x", f32_type({4, 3, 8, 8})), {}));
  EXPECT_EQ(fuse_batch_norm_tail(g).matched, 6 * 3 + 1);
  verify(g);
  EXPECT_FALSE(ops_of(g).contains("relu"));
  EXPECT_EQ(ops_of(g).at("add"), 6);
}

TEST(FuseBatchNormTail, FusesEveryNormOfADeepFamilyInTraining) {
  for (const char* model : {"resnet20_cifar_a", "plain20_cifar", "resnet20_mlp", "plain20_mlp"}) {
    Graph g;
    ModelBuilder builder{g, DType::f32, true, {}};
    const ModelSpec spec = find_model(model);
    g.set_output("y", spec.build(Scope(builder), g.input("x", f32_type({4, spec.input[0], 8, 8})), {}));
    EXPECT_EQ(fuse_batch_norm_tail(g).matched, 19) << model;
    verify(g);
    EXPECT_FALSE(ops_of(g).contains("relu")) << model;
    EXPECT_FALSE(ops_of(g).contains("add")) << model;
  }
}

TEST(Pipeline, DisabledPassesAreLeftOutAndTheOthersReport) {
  const auto graph = inference_graph("resnet18");
  std::vector<std::string> ran;
  PassOptions options;
  options.disabled = {"fold_batch_norm"};
  options.observer = [&](const std::string& name, const PassReport& report, double seconds, const Graph& seen) {
    ran.push_back(fmt::format("{} {}", name, report.matched));
    EXPECT_GE(seconds, 0);
    EXPECT_EQ(&seen, graph.get());
  };
  EXPECT_TRUE(run_inference_passes(*graph, options).empty());
  EXPECT_EQ(ran,
            (std::vector<std::string>{"fuse_convolution_epilogue 0", "fuse_max_pool 0", "fuse_batch_norm_tail 17"}));
  const auto untouched = inference_graph("resnet18");
  PassOptions none;
  for (const std::string& name : pass_names()) none.disabled.insert(name);
  const std::string before = print(*untouched);
  run_inference_passes(*untouched, none);
  run_forward_passes(*untouched, none);
  run_training_passes(*untouched, none);
  EXPECT_EQ(print(*untouched), before);
}

}  // namespace
}  // namespace resnet
