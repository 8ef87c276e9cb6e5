// Parameter counts, names and shapes: what makes other people's checkpoints fit.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <sstream>

#include "models/cifar.h"
#include "models/lecture.h"
#include "models/mlp.h"
#include "models/preact.h"
#include "models/registry.h"
#include "models/timm.h"
#include "models/torchvision.h"
#include "ops/evaluate.h"
#include "train/model_state.h"

namespace resnet {
namespace {

using namespace testing;

int64_t parameters_of(const ModelSpec& model, const ModelOptions& options = {}) {
  int64_t parameters = 0;
  for (const StateSpec& state : model_states(model, options, DType::f32)) {
    if (state.trainable) parameters += state.type.shape.elements();
  }
  return parameters;
}

TEST(Models, ParameterCountsArePublishedOnes) {
  std::map<std::string, int64_t> counts = {{"lecture_resnet18", 11178378},
                                           {"resnet18", 11689512},
                                           {"resnet34", 21797672},
                                           {"resnet50", 25557032},
                                           {"resnet101", 44549160},
                                           {"resnet152", 60192808},
                                           {"resnet50_v1", 25557032},
                                           {"resnet101_v1", 44549160},
                                           {"resnet152_v1", 60192808},
                                           {"resnext50_32x4d", 25028904},
                                           {"resnext101_32x8d", 88791336},
                                           {"resnext101_64x4d", 83455272},
                                           {"wide_resnet50_2", 68883240},
                                           {"wide_resnet101_2", 126886696},
                                           // timm 1.0.31's, which tools/model_parity.py holds against timm itself.
                                           {"resnet18d", 11708744},
                                           {"resnet26d", 16014408},
                                           {"resnet34d", 21816904},
                                           {"resnet50d", 25576264},
                                           {"resnet101d", 44568392},
                                           {"resnet152d", 60212040},
                                           {"resnet50c", 25576264},
                                           {"resnet50s", 25680808},
                                           {"seresnet50", 28088024},
                                           {"ecaresnet50d", 25576350},
                                           {"resnetblur50", 25557032},
                                           {"resnetv2_50", 25549352},
                                           {"resnetv2_101", 44541480},
                                           // The papers' 1.7, 10.2 and 36.5 million.
                                           {"preresnet164_cifar", 1703258},
                                           {"preresnet1001_cifar", 10327706},
                                           {"wrn28_10_cifar", 36479194}};
  // Option A adds nothing to the plain net; option B two projections: 16 x 32 and 32 x 64 weights and their norms.
  constexpr int64_t kProjections = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64;
  const std::map<int64_t, int64_t> deep = {{20, 269722}, {32, 464154},   {44, 658586},
                                           {56, 853018}, {110, 1727962}, {1202, 19421274}};
  for (const auto& [depth, count] : deep) {
    counts[fmt::format("resnet{}_cifar_a", depth)] = counts[fmt::format("plain{}_cifar", depth)] = count;
    counts[fmt::format("resnet{}_cifar_b", depth)] = count + kProjections;
  }
  EXPECT_EQ(counts.at("resnet20_cifar_b"), 272474);
  for (const auto& [depth, count] : std::map<int64_t, int64_t>{{20, 401418}, {56, 1000458}, {110, 1899018}}) {
    counts[fmt::format("resnet{}_mlp", depth)] = counts[fmt::format("plain{}_mlp", depth)] = count;
  }
  for (const ModelSpec& model : all_models()) {
    ASSERT_TRUE(counts.contains(model.name)) << model.name << " has no published count here";
    EXPECT_EQ(parameters_of(model), counts.at(model.name)) << model.name;
  }
  EXPECT_EQ(all_models().size(), counts.size());
}

TEST(Models, WithoutBatchNormTheLayersHaveBiasesInstead) {
  // 688 channels are normalised in the 20 layers of the CIFAR net: a bias for each instead of a scale and a shift.
  EXPECT_EQ(parameters_of(find_model("resnet20_cifar_a"), {.batch_norm = false}), 269722 - 688);
  EXPECT_EQ(parameters_of(find_model("resnet20_cifar_b"), {.batch_norm = false}), 272474 - 688 - 32 - 64);
  EXPECT_EQ(parameters_of(find_model("plain20_mlp"), {.batch_norm = false}), 401418 - 19 * 128);
  for (const char* model : {"resnet20_cifar_b", "resnet20_mlp"}) {
    for (const StateSpec& state : model_states(find_model(model), {.batch_norm = false}, DType::f32)) {
      EXPECT_EQ(state.name.find("bn"), std::string::npos) << state.name;
      EXPECT_TRUE(state.trainable) << state.name;
    }
  }
}

/// Model -> name -> shape, as tools/model_names.py wrote them.
std::map<std::string, std::map<std::string, std::string>> names_in(const std::string& name_of_file) {
  std::ifstream file(RESNET_SOURCE_DIR "/tests/models/" + name_of_file);
  std::map<std::string, std::map<std::string, std::string>> expected;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("#")) continue;
    std::istringstream words(line);
    std::string model, name, shape;
    words >> model >> name >> shape;
    expected[model][name] = shape;
  }
  return expected;
}

void expect_names(const std::map<std::string, std::map<std::string, std::string>>& expected) {
  for (const auto& [model, names] : expected) {
    std::map<std::string, std::string> ours;
    for (const StateSpec& state : model_states(find_model(model), {}, DType::f32))
      ours[state.name] = state.type.shape.str();
    EXPECT_EQ(ours, names) << model;
  }
}

TEST(Models, TorchvisionsNamesAndShapesAreTorchvisions) {
  const auto expected = names_in("torchvision_names.txt");
  ASSERT_EQ(expected.size(), 4u);
  EXPECT_EQ(expected.at("resnet18").size(), 102u);
  EXPECT_EQ(expected.at("resnet50").size(), 267u);
  expect_names(expected);
}

TEST(Models, TimmsNamesAndShapesAreTimms) {
  const auto expected = names_in("timm_names.txt");
  ASSERT_EQ(expected.size(), 4u);
  EXPECT_EQ(expected.at("resnet18d").size(), 112u);
  EXPECT_EQ(expected.at("seresnet50").size(), 331u);
  EXPECT_EQ(expected.at("ecaresnet50d").size(), 293u);
  EXPECT_EQ(expected.at("resnetv2_50").size(), 251u);
  expect_names(expected);
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

/// akamaster/pytorch_resnet_cifar10's resnet20, with either shortcut.
std::map<std::string, Shape> cifar_names(bool projections) {
  std::map<std::string, Shape> names;
  auto norm = [&](const std::string& path, int64_t channels) {
    for (const char* name : {".weight", ".bias", ".running_mean", ".running_var"}) names[path + name] = {channels};
  };
  names["conv1.weight"] = {16, 3, 3, 3};
  norm("bn1", 16);
  int64_t in = 16;
  for (int stage = 1; stage <= 3; ++stage) {
    const int64_t width = int64_t{16} << (stage - 1);
    for (int block = 0; block < 3; ++block) {
      const std::string path = fmt::format("layer{}.{}.", stage, block);
      names[path + "conv1.weight"] = {width, in, 3, 3};
      names[path + "conv2.weight"] = {width, width, 3, 3};
      norm(path + "bn1", width);
      norm(path + "bn2", width);
      if (projections && in != width) {
        names[path + "shortcut.0.weight"] = {width, in, 1, 1};
        norm(path + "shortcut.1", width);
      }
      in = width;
    }
  }
  names["linear.weight"] = {10, 64};
  names["linear.bias"] = {10};
  return names;
}

std::map<std::string, Shape> names_of(const std::string& model, const ModelOptions& options = {}) {
  std::map<std::string, Shape> names;
  for (const StateSpec& state : model_states(find_model(model), options, DType::f32))
    names[state.name] = state.type.shape;
  return names;
}

TEST(Models, TheCifarNetsNamesAreThoseOfTheReimplementationEverybodyLoads) {
  EXPECT_TRUE(names_of("resnet20_cifar_a") == cifar_names(false));
  EXPECT_TRUE(names_of("resnet20_cifar_b") == cifar_names(true));
  EXPECT_TRUE(names_of("plain20_cifar") == cifar_names(false)) << "the twin differs in its sums alone";
  EXPECT_TRUE(names_of("resnet20_cifar_b").contains("layer2.0.shortcut.0.weight"));
  const auto biased = names_of("resnet20_cifar_b", {.batch_norm = false});
  EXPECT_TRUE(biased.contains("conv1.bias") && biased.contains("layer3.0.shortcut.0.bias"));
}

TEST(Models, TheMlpsNamesAndShapesAreThoseOfItsBlocks) {
  const auto names = names_of("resnet20_mlp");
  EXPECT_EQ(names.at("linear1.weight"), (Shape{128, 784}));
  EXPECT_EQ(names.at("blocks.8.linear2.weight"), (Shape{128, 128}));
  EXPECT_EQ(names.at("blocks.0.bn1.running_var"), (Shape{128}));
  EXPECT_EQ(names.at("linear.weight"), (Shape{10, 128}));
  EXPECT_EQ(names.size(), 19u * 5 + 2) << "19 layers with a weight and a norm's four tensors, and the classifier";
  EXPECT_TRUE(names == names_of("plain20_mlp"));
  EXPECT_TRUE(names_of("resnet20_mlp", {.batch_norm = false}).contains("blocks.0.linear1.bias"));
}

TEST(Models, AnAttentionsKernelGrowsWithTheLogarithmOfItsChannels) {
  const auto names = names_of("ecaresnet50d");
  EXPECT_EQ(names.at("layer1.0.se.conv.weight"), (Shape{1, 1, 5}));
  EXPECT_EQ(names.at("layer3.0.se.conv.weight"), (Shape{1, 1, 5}));
  EXPECT_EQ(names.at("layer4.0.se.conv.weight"), (Shape{1, 1, 7}));
}

TEST(Models, ThePreactivationNetsNamesAreTheirReferences) {
  const auto names = names_of("preresnet164_cifar");
  EXPECT_EQ(names.at("stem.conv.weight"), (Shape{16, 3, 3, 3}));
  EXPECT_EQ(names.at("stages.0.blocks.0.norm1.running_var"), (Shape{16}));
  EXPECT_EQ(names.at("stages.0.blocks.0.downsample.conv.weight"), (Shape{64, 16, 1, 1}));
  EXPECT_EQ(names.at("stages.2.blocks.17.conv3.weight"), (Shape{256, 64, 1, 1}));
  EXPECT_EQ(names.at("norm.weight"), (Shape{256}));
  EXPECT_EQ(names.at("head.fc.weight"), (Shape{10, 256, 1, 1}));
  EXPECT_EQ(names.size(), 1 + 3 + 54 * (3 + 12) + 4u + 2u) << "stem, projections, blocks, last norm, classifier";
  const auto wide = names_of("wrn28_10_cifar");
  EXPECT_EQ(wide.at("block1.layer.0.convShortcut.weight"), (Shape{160, 16, 1, 1}));
  EXPECT_EQ(wide.at("block3.layer.3.conv2.weight"), (Shape{640, 640, 3, 3}));
  EXPECT_EQ(wide.at("bn1.bias"), (Shape{640}));
  EXPECT_EQ(wide.at("fc.weight"), (Shape{10, 640}));
  EXPECT_EQ(wide.size(), 1 + 3 + 12 * (2 + 8) + 4u + 2u);
  EXPECT_FALSE(names_of("wrn16_1_cifar").contains("block1.layer.0.convShortcut.weight")) << "16 channels stay 16";
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

TEST(Models, TorchvisionsLastMapIsAThirtySecondAndBottlenecksStrideInTheMiddleThePapersAtTheirStart) {
  for (const auto& [name, pooled] : {std::pair{"resnet18", "1x512x1x1"}, std::pair{"resnet50", "1x2048x1x1"}}) {
    Graph g;
    ModelBuilder builder{g, DType::f32, false, {}};
    const Value y =
        find_model(name).build(Scope(builder), g.input("x", f32_type({1, 3, 224, 224})), {.num_classes = 7});
    g.set_output("y", y);
    EXPECT_EQ(y.shape(), (Shape{1, 7}));
    EXPECT_EQ(shapes_of(g, "global_avg_pool"), std::vector<std::string>{pooled});
  }
  using torchvision::Stride;
  for (const auto& [stride_on, strided] :
       {std::pair{Stride::conv2, "layer2.0.conv2"}, std::pair{Stride::conv1, "layer2.0.conv1"}}) {
    Graph g;
    ModelBuilder builder{g, DType::f32, false, {}};
    const Value x = g.input("x", f32_type({1, 256, 56, 56}));
    g.set_output(
        "y", torchvision::bottleneck(Scope(builder) / "layer2" / 0, x, 128, 2, {.groups = 4, .stride_on = stride_on}));
    EXPECT_EQ(g.outputs().at("y").shape(), (Shape{1, 512, 28, 28}));
    for (int32_t id : g.live_nodes()) {
      const std::string& name = g.node(id).name;
      if (name != "layer2.0.conv1" && name != "layer2.0.conv2") continue;
      const auto& attributes = std::get<Conv2dAttrs>(g.node(id).attributes);
      EXPECT_EQ(attributes.stride.h, name == strided ? 2 : 1) << name;
      EXPECT_EQ(attributes.groups, name == "layer2.0.conv2" ? 4 : 1) << name;
    }
  }
}

TEST(Models, TheCifarStagesHalveTheMapWhateverItsSizeAndChannels) {
  for (const auto& [images, maps] : {std::pair{Shape{2, 3, 32, 32}, std::array{"2x16x32x32", "2x32x16x16", "2x64x8x8"}},
                                     std::pair{Shape{1, 1, 28, 28}, std::array{"1x16x28x28", "1x32x14x14", "1x64x7x7"}},
                                     std::pair{Shape{1, 2, 5, 3}, std::array{"1x16x5x3", "1x32x3x2", "1x64x2x1"}}}) {
    for (const char* model : {"resnet20_cifar_a", "resnet20_cifar_b", "plain20_cifar"}) {
      Graph g;
      ModelBuilder builder{g, DType::f32, true, {}};
      const ModelSpec spec = find_model(model);
      const Value y = spec.build(Scope(builder), g.input("x", f32_type(images)), {.num_classes = 7});
      g.set_output("y", y);
      EXPECT_EQ(y.shape(), (Shape{images[0], 7}));
      const std::vector<std::string> shapes = shapes_of(g, "conv2d");
      const int projections = model == std::string("resnet20_cifar_b") ? 1 : 0;
      EXPECT_EQ(std::count(shapes.begin(), shapes.end(), maps[0]), 7) << model;
      EXPECT_EQ(std::count(shapes.begin(), shapes.end(), maps[1]), 6 + projections) << model;
      EXPECT_EQ(std::count(shapes.begin(), shapes.end(), maps[2]), 6 + projections) << model;
      EXPECT_EQ(shapes_of(g, "add").size(), model == std::string("plain20_cifar") ? 0u : 9u);
      EXPECT_EQ(shapes_of(g, "pad_channels").size(), model == std::string("resnet20_cifar_a") ? 2u : 0u);
      EXPECT_EQ(builder.statistics.size(), static_cast<size_t>(2 * (19 + 2 * projections)));
    }
  }
}

TEST(Models, TimmsVariantsDifferWhereTheirPapersSay) {
  const auto build = [](Graph& g, const std::string& model, const Shape& image) {
    ModelBuilder builder{g, DType::f32, false, {}};
    g.set_output("y", find_model(model).build(Scope(builder), g.input("x", f32_type(image)), {}));
  };
  const auto strides = [](const Graph& g) {
    std::map<std::string, int64_t> found;
    for (int32_t id : g.live_nodes()) {
      const Node& node = g.node(id);
      if (node.op && node.op->name == "conv2d") found[node.name] = std::get<Conv2dAttrs>(node.attributes).stride.h;
    }
    return found;
  };
  {
    Graph g;  // odd maps are averaged to their edge: 9x9 -> 5x5
    build(g, "resnet50d", {1, 3, 72, 72});
    EXPECT_EQ(shapes_of(g, "avg_pool"), (std::vector<std::string>{"1x256x9x9", "1x512x5x5", "1x1024x3x3"}));
    const auto found = strides(g);
    EXPECT_EQ(found.at("conv1.0"), 2);
    EXPECT_EQ(found.at("conv1.3"), 1);
    EXPECT_EQ(found.at("layer2.0.downsample.1"), 1);
    EXPECT_EQ(found.at("layer2.0.conv2"), 2);
  }
  {
    Graph g;
    build(g, "resnetblur50", {1, 3, 64, 64});
    EXPECT_EQ(shapes_of(g, "max_pool"), std::vector<std::string>{"1x64x32x32"});
    EXPECT_EQ(shapes_of(g, "blur_pool"),
              (std::vector<std::string>{"1x64x16x16", "1x128x8x8", "1x256x4x4", "1x512x2x2"}));
    const auto found = strides(g);
    EXPECT_EQ(found.at("layer2.0.conv2"), 1);
    EXPECT_EQ(found.at("layer2.0.downsample.0"), 2);
  }
  for (const auto& [model, sigmoids] :
       {std::pair{"seresnet50", 16u}, std::pair{"ecaresnet50d", 16u}, std::pair{"resnet50s", 0u}}) {
    Graph g;
    build(g, model, {1, 3, 64, 64});
    EXPECT_EQ(shapes_of(g, "sigmoid").size(), sigmoids) << model;
    EXPECT_EQ(shapes_of(g, "conv2d")[0], model == std::string("resnet50s")    ? "1x64x32x32"
                                         : model == std::string("seresnet50") ? "1x64x32x32"
                                                                              : "1x32x32x32");
  }
  {
    Graph g;  // He's code strides the first 1x1 of a block, and its shortcut
    build(g, "preresnet20_cifar", {1, 3, 32, 32});
    const auto found = strides(g);
    EXPECT_EQ(found.at("stages.1.blocks.0.conv1"), 2);
    EXPECT_EQ(found.at("stages.1.blocks.0.conv2"), 1);
    EXPECT_EQ(found.at("stages.1.blocks.0.downsample.conv"), 2);
    EXPECT_EQ(found.at("stages.0.blocks.0.conv1"), 1);
  }
}

TEST(Models, StochasticDepthFollowsTheLinearRuleInTrainingAlone) {
  EXPECT_DOUBLE_EQ(drop_path_rate(0.3, 0, 16), 0);
  EXPECT_DOUBLE_EQ(drop_path_rate(0.3, 5, 16), 0.1);
  EXPECT_DOUBLE_EQ(drop_path_rate(0.3, 15, 16), 0.3);
  EXPECT_EQ(drop_path_rate(0.3, 0, 1), 0) << "a block alone is the first";
  for (const auto& [model, last, blocks] :
       {std::tuple{"resnet18", "layer4.1.drop_path", 8u}, std::tuple{"seresnet50", "layer4.2.drop_path", 16u},
        std::tuple{"resnetv2_50", "stages.3.blocks.2.drop_path", 16u},
        std::tuple{"resnet20_cifar_a", "layer3.2.drop_path", 9u},
        std::tuple{"preresnet20_cifar", "stages.2.blocks.1.drop_path", 6u},
        std::tuple{"wrn16_2_cifar", "block3.layer.1.drop_path", 6u}}) {
    for (const bool training : {true, false}) {
      Graph g;
      ModelBuilder builder{g, DType::f32, training, {}};
      const Value y =
          build_model(find_model(model), Scope(builder), g.input("x", f32_type({2, 3, 64, 64})), {.drop_path = 0.2});
      g.set_output("y", y);
      verify(g);
      EXPECT_EQ(shapes_of(g, "scale").size(), training ? (blocks - 1) + (model == std::string("seresnet50") ? 16 : 0)
                                                       : (model == std::string("seresnet50") ? 16u : 0u))
          << model;
      ASSERT_EQ(builder.drop_paths.size(), training ? blocks - 1 : 0u) << model << ": the first block is never dropped";
      if (!training) continue;
      EXPECT_EQ(builder.drop_paths.back().input, last);
      EXPECT_DOUBLE_EQ(builder.drop_paths.back().rate, 0.2);
      EXPECT_DOUBLE_EQ(builder.drop_paths.front().rate, 0.2 / (blocks - 1));
      EXPECT_EQ(g.node(g.leaves().at(last)).outputs[0], f32_type({2}));
    }
  }
}

TEST(Models, TheLayoutOfTheStagesIsAnOptionOfEveryResidualFamily) {
  // ResNet-101 is ResNet-50 with 23 blocks in its third stage, and so on.
  for (const auto& [model, blocks, same] :
       {std::tuple{"resnet50", StageLayout{3, 4, 23, 3}, "resnet101"},
        std::tuple{"resnet50d", StageLayout{3, 8, 36, 3}, "resnet152d"},
        std::tuple{"resnetv2_50", StageLayout{3, 4, 23, 3}, "resnetv2_101"},
        std::tuple{"resnet20_cifar_b", StageLayout{5, 5, 5}, "resnet32_cifar_b"},
        std::tuple{"preresnet11_cifar", StageLayout{18, 18, 18}, "preresnet164_cifar"},
        std::tuple{"wrn10_10_cifar", StageLayout{4, 4, 4}, "wrn28_10_cifar"}}) {
    EXPECT_TRUE(names_of(model, {.blocks = blocks}) == names_of(same)) << model;
  }
  const auto two = names_of("resnet18", {.blocks = {1, 2}});
  EXPECT_FALSE(two.contains("layer3.0.conv1.weight"));
  EXPECT_EQ(two.at("fc.weight"), (Shape{1000, 128}));
  EXPECT_EQ(names_of("resnet20_cifar_a", {.blocks = {1, 1, 1, 2}}).at("layer4.1.conv2.weight"),
            (Shape{128, 128, 3, 3}));
}

/// Values for every leaf: first values of states (seed 5), and `x`.
Tensors leaves_of(const Graph& graph, const Tensor& x) {
  Tensors leaves;
  for (const auto& [name, id] : graph.leaves()) {
    const Node& node = graph.node(id);
    leaves[name] =
        node.kind == NodeKind::input ? x : initial_value({name, node.outputs[0], node.initializer, node.trainable}, 5);
  }
  return leaves;
}

using Block = std::function<Value(Scope, Value)>;

/// The block in inference mode, in double, over its first values.
Tensor evaluate_block(const Tensor& x, const Block& block) {
  Graph g;
  ModelBuilder builder{g, DType::f64, false, {}};
  g.set_output("y", block(Scope(builder), g.input("x", x.type())));
  return evaluate(g, leaves_of(g, x)).at("y");
}

Tensor positive_tensor(const Shape& shape, uint64_t seed) {
  Rng rng(seed);
  Tensor x = random_tensor(shape, rng);
  for (double& v : x.as<double>()) v = std::abs(v);
  return x;
}

TEST(Models, ABlockThatStartsWithGammaZeroIsItsShortcut) {
  const Tensor map = positive_tensor({2, 16, 5, 3}, 1), row = positive_tensor({3, 128}, 2);
  for (const bool zero : {true, false}) {
    const Block convolutions = [&](Scope s, Value x) {
      return cifar::basic_block(s, x, 16, 1, {.zero_init_residual = zero});
    };
    const Block linears = [&](Scope s, Value x) { return mlp::block(s, x, {.zero_init_residual = zero}); };
    EXPECT_EQ(evaluate_block(map, convolutions) == map, zero);
    EXPECT_EQ(evaluate_block(row, linears) == row, zero);
  }
  // Where the shape changes option A takes every second pixel and puts as many zeros before as after.
  const Tensor y = evaluate_block(
      map, [](Scope s, Value x) { return cifar::basic_block(s, x, 32, 2, {.zero_init_residual = true}); });
  ASSERT_EQ(y.shape(), (Shape{2, 32, 3, 2}));
  Tensor expected(DType::f64, y.shape());
  for (size_t n = 0; n < 2; ++n) {
    for (size_t c = 0; c < 16; ++c) {
      for (size_t h = 0; h < 3; ++h) {
        for (size_t w = 0; w < 2; ++w) {
          expected.as<double>()[((n * 32 + 8 + c) * 3 + h) * 2 + w] =
              map.as<double>()[((n * 16 + c) * 5 + 2 * h) * 3 + 2 * w];
        }
      }
    }
  }
  EXPECT_EQ(y, expected);
}

TEST(Models, OnlyTheLastNormOfEachBlockStartsWithGammaZero) {
  for (const auto& [model, blocks] : {std::pair{"resnet20_cifar_b", 9}, std::pair{"resnet20_mlp", 9}}) {
    int zeros = 0;
    for (const StateSpec& state : model_states(find_model(model), {.zero_init_residual = true}, DType::f32)) {
      if (state.name.ends_with("bn2.weight")) {
        EXPECT_EQ(state.initializer, constant(0)) << state.name;
        ++zeros;
      } else if (state.trainable && state.type.shape.rank() == 1 && state.name.ends_with("weight")) {
        EXPECT_EQ(state.initializer, constant(1)) << state.name;
      }
    }
    EXPECT_EQ(zeros, blocks) << model;
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
  EXPECT_DOUBLE_EQ(kaiming_normal_fan_in({64, 32, 3, 3}).scale, std::sqrt(2.0 / (9 * 32)));
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

TEST(Models, TheInitialisationIsAnOptionOfEveryWeightOfTheDeepFamilies) {
  for (const char* model : {"resnet20_cifar_b", "plain20_mlp"}) {
    for (const WeightInit init : {WeightInit::kaiming, WeightInit::pytorch, WeightInit::xavier}) {
      for (const StateSpec& state : model_states(find_model(model), {.init = init}, DType::f32)) {
        const Shape& shape = state.type.shape;
        if (shape.rank() < 2) continue;
        const Initializer expected = init == WeightInit::xavier    ? xavier_uniform(shape)
                                     : init == WeightInit::pytorch ? uniform_fan_in(shape)
                                     : shape.rank() == 2           ? kaiming_normal_fan_in(shape)
                                                                   : kaiming_normal_fan_out(shape);
        EXPECT_EQ(state.initializer, expected) << state.name << " " << name_of(init);
      }
    }
  }
}

TEST(Models, AnUnknownNameIsAnsweredWithTheNearest) {
  expect_user_error([] { find_model("resnet-50"); }, {"resnet-50", "resnet50"});
  expect_user_error([] { find_model("plain20_cifar_a"); }, {"plain20_cifar_a", "nearest: plain20_cifar"});
  for (const char* name :
       {"", "resnet", "resnet_cifar", "resnet020_cifar", "resnet+20_cifar", "resnet20_cifar_", "resnet20_cifar_c",
        "resnet99999999999999999999_cifar", "plain_mlp", "resnet20_mlp_a", "preresnet164", "preresnet_cifar",
        "wrn28_cifar", "wrn28_0_cifar", "wrn28_10", "wrn28-10_cifar"}) {
    expect_user_error([&] { find_model(name); }, {"model '" + std::string(name) + "' is unknown", "nearest"});
  }
}

TEST(Models, EveryDepthOfAFamilyHasItsName) {
  EXPECT_EQ(find_model("resnet20_cifar").name, "resnet20_cifar_a") << "the paper's plain name is option A";
  for (const auto& [name, depth, canonical] :
       {std::tuple{"resnet8_cifar", 8, "resnet8_cifar_a"}, std::tuple{"resnet26_cifar_a", 26, "resnet26_cifar_a"},
        std::tuple{"plain14_cifar", 14, "plain14_cifar"}, std::tuple{"resnet4_mlp", 4, "resnet4_mlp"},
        std::tuple{"plain22_mlp", 22, "plain22_mlp"}}) {
    const ModelSpec spec = find_model(name);
    EXPECT_EQ(spec.name, canonical);
    Graph g;
    ModelBuilder builder{g, DType::f32, false, {}};
    const Shape& in = spec.input;
    g.set_output("y", spec.build(Scope(builder), g.input("x", f32_type({1, in[0], in[1], in[2]})), {}));
    EXPECT_EQ(shapes_of(g, "conv2d").size() + shapes_of(g, "linear").size(), static_cast<size_t>(depth)) << name;
  }
  EXPECT_EQ(find_model("resnet26_cifar_b").name, "resnet26_cifar_b");
  EXPECT_EQ(find_model("preresnet110_cifar").name, "preresnet110_cifar");
  EXPECT_EQ(find_model("wrn40_2_cifar").name, "wrn40_2_cifar");
  EXPECT_EQ(parameters_of(find_model("wrn40_2_cifar")), 2243546) << "2.2 million, the paper's Table 4";
}

TEST(Models, ADepthThatAFamilyDoesNotHaveIsAnsweredWithTheNearest) {
  expect_user_error([] { find_model("resnet21_cifar_a"); }, {"'resnet21_cifar_a'", "21", "6n + 2", "20 and 26"});
  expect_user_error([] { find_model("resnet2_cifar_b"); }, {"6n + 2", "8 and 14"});
  expect_user_error([] { find_model("plain56000_cifar"); }, {"56000", "10000"});
  expect_user_error([] { find_model("resnet21_mlp"); }, {"2n + 2", "20 and 22"});
  expect_user_error([] { find_model("plain2_mlp"); }, {"2n + 2", "4 and 6"});
  expect_user_error([] { find_model("preresnet110_cifar_"); }, {"unknown"});
  expect_user_error([] { find_model("preresnet112_cifar"); }, {"112", "9n + 2", "110 and 119"});
  expect_user_error([] { find_model("wrn26_10_cifar"); }, {"26", "6n + 4", "22 and 28"});
  expect_user_error([] { find_model("wrn28_101_cifar"); }, {"width 101", "100"});
  Graph g;
  ModelBuilder builder{g, DType::f32, false, {}};
  expect_user_error(
      [&] {
        cifar::resnet(Scope(builder), g.input("x", f32_type({1, 3, 8, 8})), {.depth = 9});
      },
      {"depth 9", "6n + 2"});
  expect_user_error(
      [&] {
        mlp::resnet(Scope(builder), g.input("y", f32_type({1, 3, 8, 8})), {.depth = 3});
      },
      {"depth 3", "2n + 2"});
}

TEST(Models, AnOptionThatAModelDoesNotTakeIsRefusedWithThoseItTakes) {
  struct Case {
    std::string model;
    ModelOptions options;
    std::vector<std::string> parts;
  };
  const std::vector<Case> wrong = {
      {"resnet18",
       {.batch_norm = false},
       {"'resnet18'", "model.batch_norm", "false", "takes model.zero_init_residual, model.blocks, model.drop_path;"}},
      {"lecture_resnet18", {.init = WeightInit::xavier}, {"model.init", "xavier", "takes model.stem_padding;"}},
      {"resnet20_cifar_a", {.stem_padding = 0}, {"model.stem_padding", "model.batch_norm, model.zero_init_residual"}},
      {"plain20_cifar", {.zero_init_residual = true}, {"model.zero_init_residual", "model.batch_norm, model.init"}},
      {"plain20_mlp", {.zero_init_residual = true}, {"model.zero_init_residual", "model.batch_norm, model.init"}},
      {"plain20_cifar", {.drop_path = 0.1}, {"model.drop_path", "0.1", "model.init, model.blocks"}},
      {"resnet20_mlp", {.blocks = {3, 3}}, {"model.blocks", "[3, 3]", "model.init"}},
      {"resnetv2_50", {.zero_init_residual = true}, {"model.zero_init_residual", "model.blocks, model.drop_path"}},
      {"resnet20_mlp",
       {.batch_norm = false, .zero_init_residual = true},
       {"'resnet20_mlp'", "model.zero_init_residual", "model.batch_norm=false"}}};
  for (const Case& c : wrong) {
    const ModelSpec spec = find_model(c.model);
    expect_user_error([&] { check_options(spec, c.options); }, c.parts);
    expect_user_error([&] { model_states(spec, c.options, DType::f32); }, c.parts);
  }
  check_options(find_model("lecture_resnet18"), {.num_classes = 3, .stem_padding = 0});
  check_options(find_model("resnet20_cifar_b"), {.zero_init_residual = true, .init = WeightInit::pytorch});
  check_options(find_model("plain20_mlp"), {.batch_norm = false, .init = WeightInit::xavier});
  for (const ModelSpec& model : all_models()) EXPECT_NO_THROW(check_options(model, {})) << model.name;
}

TEST(Models, OptionsGoToTextAndBack) {
  const ModelOptions all{.stem_padding = 2,
                         .batch_norm = false,
                         .zero_init_residual = true,
                         .init = WeightInit::xavier,
                         .blocks = {3, 4, 6, 3},
                         .drop_path = 0.1};
  EXPECT_EQ(changed_options(all), (std::map<std::string, std::string>{{"stem_padding", "2"},
                                                                      {"batch_norm", "false"},
                                                                      {"zero_init_residual", "true"},
                                                                      {"init", "xavier"},
                                                                      {"blocks", "[3, 4, 6, 3]"},
                                                                      {"drop_path", "0.1"}}));
  ModelOptions read;
  for (const auto& [name, text] : changed_options(all)) set_option(name, text, read);
  EXPECT_EQ(read, all);
  EXPECT_TRUE(changed_options({.num_classes = 7}).empty()) << "every model takes the number of classes";
  expect_user_error([&] { set_option("depth", "3", read); }, {"model.depth", "stem_padding, batch_norm"});
  expect_user_error([&] { set_option("init", "Kaiming", read); }, {"model.init", "'Kaiming'", "pytorch"});
  expect_user_error([&] { set_option("batch_norm", "", read); }, {"model.batch_norm", "''", "true or false"});
  for (const char* padding : {"7", "-1", "3.0", " 3", ""}) {
    expect_user_error([&] { set_option("stem_padding", padding, read); }, {"model.stem_padding", "0 to 6"});
  }
  for (const char* blocks : {"", "[]", "[3,]", "3,4,", "[3", "3]", "[0, 1]", "[-1]", "[201]", "[1.5]", "[1 2]", "x",
                             "1,1,1,1,1,1,1", "99999999999999999999"}) {
    expect_user_error([&] { set_option("blocks", blocks, read); }, {"model.blocks", "1 to 6 stages", "[3, 4, 6, 3]"});
  }
  for (const char* rate : {"", "1", "-0.1", "nan", "inf", "0.1x", " 0.1"}) {
    expect_user_error([&] { set_option("drop_path", rate, read); }, {"model.drop_path", "[0, 1)"});
  }
  EXPECT_EQ(read, all);
  set_option("blocks", " [ 2 ,2] ", read);
  EXPECT_EQ(read.blocks, (StageLayout{2, 2}));
}

}  // namespace
}  // namespace resnet
