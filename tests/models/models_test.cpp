// Parameter counts, names and shapes: what makes other people's checkpoints fit.

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>

#include "models/lecture.h"
#include "models/registry.h"
#include "models/torchvision.h"
#include "ops/evaluate.h"
#include "train/model_state.h"

namespace resnet {
namespace {

using namespace testing;

TEST(Models, ParameterCountsArePublishedOnes) {
  const std::map<std::string, int64_t> counts = {{"lecture_resnet18", 11178378}, {"resnet18", 11689512},
                                                 {"resnet34", 21797672},         {"resnet50", 25557032},
                                                 {"resnet101", 44549160},        {"resnet152", 60192808}};
  for (const ModelSpec& model : all_models()) {
    int64_t parameters = 0;
    for (const StateSpec& state : model_states(model, {}, DType::f32)) {
      if (state.trainable) parameters += state.type.shape.elements();
    }
    ASSERT_TRUE(counts.contains(model.name)) << model.name << " has no published count here";
    EXPECT_EQ(parameters, counts.at(model.name)) << model.name;
  }
  EXPECT_EQ(all_models().size(), counts.size());
}

TEST(Models, TorchvisionsNamesAndShapesAreTorchvisions) {
  std::ifstream file(RESNET_SOURCE_DIR "/tests/models/torchvision_names.txt");
  std::map<std::string, std::map<std::string, std::string>> expected;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("#")) continue;
    std::istringstream words(line);
    std::string model, name, shape;
    words >> model >> name >> shape;
    expected[model][name] = shape;
  }
  ASSERT_EQ(expected.size(), 2u);
  EXPECT_EQ(expected.at("resnet18").size(), 102u);
  EXPECT_EQ(expected.at("resnet50").size(), 267u);
  for (const auto& [model, names] : expected) {
    std::map<std::string, std::string> ours;
    for (const StateSpec& state : model_states(find_model(model), {}, DType::f32))
      ours[state.name] = state.type.shape.str();
    EXPECT_EQ(ours, names) << model;
  }
}

/// The course's PyTorch code: nn.Sequential(b1, b2, b3, b4, b5, AdaptiveAvgPool2d, Flatten, Linear).
std::map<std::string, Shape> lecture_names() {
  std::map<std::string, Shape> names;
  auto conv = [&](const std::string& path, int64_t out, int64_t in, int64_t kernel) {
    names[path + ".weight"] = {out, in, kernel, kernel};
    names[path + ".bias"] = {out};
  };
  auto norm = [&](const std::string& path, int64_t channels) {
    for (const char* name : {".weight", ".bias", ".running_mean", ".running_var"}) names[path + name] = {channels};
  };
  conv("0.0", 64, 1, 7);
  norm("0.1", 64);
  int64_t in = 64;
  for (int stage = 1; stage <= 4; ++stage) {
    const int64_t width = int64_t{64} << (stage - 1);
    for (int block = 0; block < 2; ++block) {
      const std::string path = fmt::format("{}.{}.", stage, block);
      conv(path + "conv1", width, in, 3);
      conv(path + "conv2", width, width, 3);
      if (stage > 1 && block == 0) conv(path + "conv3", width, in, 1);
      norm(path + "bn1", width);
      norm(path + "bn2", width);
      in = width;
    }
  }
  names["7.weight"] = {10, 512};
  names["7.bias"] = {10};
  return names;
}

TEST(Models, TheLecturesNamesAreTheCoursesCode) {
  std::map<std::string, Shape> ours;
  for (const StateSpec& state : model_states(find_model("lecture_resnet18"), {}, DType::f32))
    ours[state.name] = state.type.shape;
  const std::map<std::string, Shape> expected = lecture_names();
  EXPECT_EQ(expected.size(), 110u) << "21 layers with weight and bias, 17 norms with 4 tensors";
  EXPECT_TRUE(expected.contains("0.0.weight") && expected.contains("2.0.conv3.bias") && expected.contains("7.weight"));
  EXPECT_TRUE(ours == expected) << "names differ in number (" << ours.size() << "), spelling or shape";
}

/// The output shape of every node named `name` (or of the op, where nodes have no name), in order.
std::vector<std::string> shapes_of(const Graph& graph, std::string_view op) {
  std::vector<std::string> shapes;
  for (int32_t id : graph.live_nodes()) {
    if (graph.node(id).op && graph.node(id).op->name == op) shapes.push_back(graph.node(id).outputs[0].shape.str());
  }
  return shapes;
}

TEST(Models, TheLecturesStagesHalveTheMapAsThePublishedListingShows) {
  Graph g;
  ModelBuilder builder{g, DType::f32, false, {}};
  const Scope s(builder);
  Value x = g.input("x", f32_type({1, 1, 96, 96}));
  x = lecture::b1(s / 0, x);
  EXPECT_EQ(x.shape(), (Shape{1, 64, 24, 24}));
  x = lecture::resnet_block(s / 1, x, 64, 2, true);
  EXPECT_EQ(x.shape(), (Shape{1, 64, 24, 24}));
  x = lecture::resnet_block(s / 2, x, 128, 2);
  EXPECT_EQ(x.shape(), (Shape{1, 128, 12, 12}));
  x = lecture::resnet_block(s / 3, x, 256, 2);
  EXPECT_EQ(x.shape(), (Shape{1, 256, 6, 6}));
  x = lecture::resnet_block(s / 4, x, 512, 2);
  EXPECT_EQ(x.shape(), (Shape{1, 512, 3, 3}));
  const Value logits = lecture::resnet18(s, g.input("images", f32_type({4, 1, 96, 96})));
  EXPECT_EQ(logits.shape(), (Shape{4, 10}));
}

TEST(Models, TheListingsStemHasNoPadding) {
  for (const auto& [padding, conv, pooled] :
       {std::tuple{3, "1x64x48x48", "1x64x24x24"}, std::tuple{0, "1x64x45x45", "1x64x23x23"}}) {
    Graph g;
    ModelBuilder builder{g, DType::f32, false, {}};
    g.set_output("y", find_model("lecture_resnet18")
                          .build(Scope(builder), g.input("x", f32_type({1, 1, 96, 96})), {.stem_padding = padding}));
    EXPECT_EQ(shapes_of(g, "conv2d")[0], conv);
    EXPECT_EQ(shapes_of(g, "max_pool"), std::vector<std::string>{pooled});
  }
}

TEST(Models, TorchvisionsLastMapIsAThirtySecondAndBottlenecksStrideInTheMiddle) {
  for (const auto& [name, pooled] : {std::pair{"resnet18", "1x512x1x1"}, std::pair{"resnet50", "1x2048x1x1"}}) {
    Graph g;
    ModelBuilder builder{g, DType::f32, false, {}};
    const Value y =
        find_model(name).build(Scope(builder), g.input("x", f32_type({1, 3, 224, 224})), {.num_classes = 7});
    g.set_output("y", y);
    EXPECT_EQ(y.shape(), (Shape{1, 7}));
    EXPECT_EQ(shapes_of(g, "global_avg_pool"), std::vector<std::string>{pooled});
  }
  Graph g;
  ModelBuilder builder{g, DType::f32, false, {}};
  const Value x = g.input("x", f32_type({1, 256, 56, 56}));
  g.set_output("y", torchvision::bottleneck(Scope(builder) / "layer2" / 0, x, 128, 2));
  EXPECT_EQ(g.outputs().at("y").shape(), (Shape{1, 512, 28, 28}));
  for (int32_t id : g.live_nodes()) {
    if (g.node(id).name != "layer2.0.conv1" && g.node(id).name != "layer2.0.conv2") continue;
    const auto stride = std::get<Conv2dAttrs>(g.node(id).attributes).stride;
    EXPECT_EQ(stride.h, g.node(id).name == "layer2.0.conv2" ? 2 : 1) << g.node(id).name;
  }
}

TEST(Models, ABlockWhoseShortcutDoesNotFitSaysSo) {
  Graph g;
  ModelBuilder builder{g, DType::f32, false, {}};
  const Value x = g.input("x", f32_type({1, 3, 6, 6}));
  expect_user_error([&] { lecture::residual(Scope(builder), x, 4); }, {"add", "1x4x6x6", "1x3x6x6"});
  EXPECT_EQ(lecture::residual(Scope(builder) / "b", x, 6, {.use_1x1conv = true, .strides = 2}).shape(),
            (Shape{1, 6, 3, 3}));
  EXPECT_EQ(lecture::residual(Scope(builder) / "c", x, 3).shape(), x.shape());
}

TEST(Models, ScopesArePathsAndTrainingAsksForEveryNormsStatistics) {
  Graph g;
  ModelBuilder builder{g, DType::f64, true, {}};
  EXPECT_EQ((Scope(builder) / "layer1" / 0 / "conv1").path(), "layer1.0.conv1");
  const Value x = g.input("x", f64_type({2, 3, 4, 4}));
  batch_norm(Scope(builder) / "bn", x);
  ASSERT_EQ(builder.statistics.size(), 2u);
  EXPECT_EQ(g.node(builder.statistics[1].running).name, "bn.running_var");
  EXPECT_DOUBLE_EQ(builder.statistics[1].scale, 32.0 / 31.0) << "PyTorch keeps the unbiased variance";
  EXPECT_DOUBLE_EQ(builder.statistics[0].scale, 1);
}

TEST(Models, InitialValuesHaveTheirPublishedSpread) {
  EXPECT_DOUBLE_EQ(xavier_uniform({64, 32, 3, 3}).scale, std::sqrt(6.0 / (9 * 96)));
  EXPECT_DOUBLE_EQ(kaiming_normal_fan_out({64, 32, 3, 3}).scale, std::sqrt(2.0 / (9 * 64)));
  EXPECT_DOUBLE_EQ(uniform_fan_in({10, 512}).scale, 1 / std::sqrt(512.0));
  for (const StateSpec& state : model_states(find_model("resnet18"), {}, DType::f32)) {
    EXPECT_EQ(state.trainable, state.name.find("running_") == std::string::npos) << state.name;
    if (state.name.find("conv") != std::string::npos) {
      EXPECT_EQ(state.initializer, kaiming_normal_fan_out(state.type.shape)) << state.name;
    }
    if (state.name == "bn1.weight" || state.name == "bn1.running_var") {
      EXPECT_EQ(state.initializer, constant(1)) << state.name;
    }
  }
}

TEST(Models, AnUnknownNameIsAnsweredWithTheNearest) {
  expect_user_error([] { find_model("resnet-50"); }, {"resnet-50", "resnet50"});
}

}  // namespace
}  // namespace resnet
