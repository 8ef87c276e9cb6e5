// Whole nets: a training step and inference on the cpu backend in f32 against the reference in double.

#include "train/training_step.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "models/lecture.h"
#include "runtime/on_backend.h"
#include "train/inference.h"
#include "train/model_state.h"

namespace resnet {
namespace {

using namespace testing;

struct Net {
  ModelSpec spec;
  Shape images;
  ModelOptions options = {};
};

/// Two of the lecture's blocks, one that halves, on maps small enough for every edge case of a kernel.
Net small_net() {
  ModelSpec spec{"two blocks", "", {3, 12, 12}, 5, [](Scope s, Value x, const ModelOptions&) {
                   x = lecture::residual(s / "a", x, 3);
                   x = lecture::residual(s / "b", x, 20, {.use_1x1conv = true, .strides = 2});
                   return linear(s / "fc", flatten(global_avg_pool(x)), 5);
                 }};
  return {.spec = spec, .images = {2, 3, 12, 12}};
}

Net published(const std::string& name, int64_t side) {
  const ModelSpec& spec = find_model(name);
  return {.spec = spec, .images = {2, spec.input[0], side, side}};
}

/// First values of every state, f32; statistics as if some training had been done, so that folding has something to do.
Tensors first_values(const Net& net, uint64_t seed) {
  ModelSpec spec = net.spec;
  spec.input = {net.images[1], net.images[2], net.images[3]};
  Tensors values;
  for (const StateSpec& state : model_states(spec, net.options, DType::f32)) {
    Rng rng(hash_combine(seed, hash_text(state.name)));
    values[state.name] = initial_value(state, seed);
    if (state.name.ends_with("running_mean")) values[state.name] = random_floats(state.type.shape, rng, -0.2, 0.2);
    if (state.name.ends_with("running_var")) values[state.name] = random_floats(state.type.shape, rng, 0.5, 1.5);
  }
  return values;
}

Tensors in_type(Tensors tensors, DType dtype) {
  for (auto& [name, t] : tensors) {
    if (t.dtype() == DType::f32) t = convert(t, dtype);
  }
  return tensors;
}

struct Setup {
  std::string backend = "cpu";
  int threads = 1;
  DType dtype = DType::f32;
  bool passes = true;
};

PassOptions pass_options(bool on) {
  PassOptions options;
  if (!on) {
    for (const std::string& name : pass_names()) options.disabled.insert(name);
  }
  return options;
}

Tensors train_one_step(const Net& net, const Setup& setup, uint64_t seed = 7) {
  Session session(make_backend(setup.backend, setup.threads));
  Program& program = session.compile(make_training_step(net.spec, {.model = net.options,
                                                                   .dtype = setup.dtype,
                                                                   .images = net.images,
                                                                   .momentum = 0.5,
                                                                   .weight_decay = 0.01,
                                                                   .gradient_outputs = true,
                                                                   .passes = pass_options(setup.passes)}));
  Tensors leaves = first_values(net, seed);
  Rng rng(mix(seed));
  leaves["images"] = random_floats(net.images, rng, 0, 1);
  std::vector<int32_t> labels;
  for (int64_t n = 0; n < net.images[0]; ++n) labels.push_back(static_cast<int32_t>((1 + 2 * n) % 5));
  leaves["labels"] = i32({net.images[0]}, labels);
  leaves["lr"] = f32_scalar(0.01f);
  for (const DropPath& branch : drop_paths(net.spec, net.options)) {
    Tensor& factors = leaves[branch.input] = Tensor(DType::f32, {net.images[0]});
    for (int64_t n = 0; n < net.images[0]; ++n)
      factors.as<float>()[static_cast<size_t>(n)] = static_cast<float>(drop_path_factor(branch, seed, 0, n));
  }
  return run(session, program, in_type(leaves, setup.dtype));
}

double norm(const Tensor& t) {
  double sum = 0;
  for (double v : t.as<double>()) sum += v * v;
  return std::sqrt(sum);
}

/// |a - b| / |b|.
double relative_distance(const Tensor& a, const Tensor& b) {
  Tensor difference = convert(a, DType::f64);
  for (size_t i = 0; i < difference.as<double>().size(); ++i) difference.as<double>()[i] -= b.as<double>()[i];
  return norm(difference) / norm(b);
}

double scalar(const Tensors& t, const std::string& name) { return convert(t.at(name), DType::f64).as<double>()[0]; }

struct Distances {
  int counted = 0;
  double median = 0, worst = 0;
  std::string where;
};

/// Gradients (or another prefix) by relative norm; those that are zero but for rounding are left out.
Distances distances(const Tensors& actual, const Tensors& expected, const std::string& prefix) {
  double largest = 0;
  for (const auto& [name, t] : expected) {
    if (name.starts_with(prefix)) largest = std::max(largest, norm(t));
  }
  Distances d;
  std::vector<double> all;
  for (const auto& [name, t] : expected) {
    if (!name.starts_with(prefix) || norm(t) < 1e-9 * largest) continue;
    all.push_back(relative_distance(actual.at(name), t));
    if (!(all.back() <= d.worst)) d.worst = all.back(), d.where = name;
  }
  std::sort(all.begin(), all.end());
  d.counted = static_cast<int>(all.size());
  if (!all.empty()) d.median = all[all.size() / 2];
  return d;
}

class WholeNet : public ::testing::Test {
 protected:
  PrivateTuningCache cache_;
};

struct GradientBounds {
  double median, worst;
};
/// The contract's for one f32 step: a ReLU that changes side moves everything below it.
constexpr GradientBounds kContract{1e-2, 3e-2};
/// With two images the last maps of a deep net have 8 values a channel: one of some 2000 active units changing side
/// moves the gradients by sqrt(1/2000), 2 %, and rounding that 50 layers amplify moves a few. A wrong rule moves them
/// by 1.
constexpr GradientBounds kDeepOnTinyMaps{0.1, 0.2};

void expect_step_agrees(const Net& net, const Setup& setup, int parameters, GradientBounds bounds = kContract) {
  const Tensors expected = train_one_step(net, {.backend = "reference", .dtype = DType::f64});
  const Tensors actual = train_one_step(net, setup);
  EXPECT_NEAR(scalar(actual, "loss"), scalar(expected, "loss"), 1e-4 * scalar(expected, "loss"));
  EXPECT_EQ(scalar(actual, "correct"), scalar(expected, "correct"));
  EXPECT_GT(scalar(expected, "loss"), 0.5);
  const Distances d = distances(actual, expected, "gradient:");
  EXPECT_EQ(d.counted, parameters) << "parameters whose gradient is not zero";
  EXPECT_LE(d.median, bounds.median);
  EXPECT_LE(d.worst, bounds.worst) << d.where;
  // Updated parameters and statistics.
  for (const auto& [name, t] : first_values(net, 7)) {
    EXPECT_LE(relative_distance(actual.at(name), expected.at(name)), bounds.worst) << name;
    EXPECT_NE(convert(actual.at(name), DType::f32), t) << name << " was not updated";
  }
}

TEST_F(WholeNet, AStepOfASmallNetAgreesWithDoubleForEveryAlgorithmAndThreadCount) {
  for (const char* algorithm : {"direct", "winograd", "auto"}) {
    SCOPED_TRACE(algorithm);
    ScopedEnvironment environment("RESNET_CONV_ALGORITHM", algorithm);
    // 7 weights and biases less the 4 biases under a norm, whose gradient is zero, and 4 norms.
    expect_step_agrees(small_net(), {.threads = algorithm == std::string("auto") ? 2 : 1}, 16);
  }
}

TEST_F(WholeNet, AStepOfTheLecturesNetAgreesWithDouble) {
  ScopedEnvironment environment("RESNET_CONV_ALGORITHM", "direct");
  expect_step_agrees(published("lecture_resnet18", 48), {}, 21 + 21 - 17 + 2 * 17);
}

TEST_F(WholeNet, AStepOfResnet18AgreesWithDouble) {
  ScopedEnvironment environment("RESNET_CONV_ALGORITHM", "winograd");
  expect_step_agrees(published("resnet18", 48), {}, 62);
}

TEST_F(WholeNet, AStepOfResnet50AgreesWithDouble) {
  ScopedEnvironment environment("RESNET_CONV_ALGORITHM", "direct");
  expect_step_agrees(published("resnet50", 48), {}, 161, kDeepOnTinyMaps);
}

/// Eight layers of a family, on more images than two, of which batch norm of a linear layer makes -1 and 1.
Net shallow(const std::string& name, ModelOptions options = {}) {
  Net net = published(name, 16);
  net.images[0] = 12;
  net.options = options;
  return net;
}

TEST_F(WholeNet, AStepOfTheDeepFamiliesAgreesWithDouble) {
  ScopedEnvironment environment("RESNET_CONV_ALGORITHM", "direct");
  // Of seven convolutions (two more on shortcuts of option B) a weight and two of a norm each; the classifier's two.
  expect_step_agrees(shallow("resnet8_cifar_a"), {}, 7 * 3 + 2);
  expect_step_agrees(shallow("resnet8_cifar_b"), {.threads = 2}, 9 * 3 + 2);
  expect_step_agrees(shallow("plain8_cifar"), {}, 7 * 3 + 2);
  expect_step_agrees(shallow("resnet8_mlp"), {.threads = 2}, 7 * 3 + 2);
  // Without batch norm a weight and a bias each.
  expect_step_agrees(shallow("resnet8_cifar_b", {.batch_norm = false}), {}, 9 * 2 + 2);
  expect_step_agrees(shallow("plain8_mlp", {.batch_norm = false, .init = WeightInit::xavier}), {}, 7 * 2 + 2);
}

TEST_F(WholeNet, AStepOfTimmsAndThePreactivationNetsAgreesWithDouble) {
  ScopedEnvironment environment("RESNET_CONV_ALGORITHM", "direct");
  const StageLayout two{1, 1};
  const auto small = [&](const std::string& name, ModelOptions options) {
    options.blocks = two;
    Net net = shallow(name, options);
    net.images = {6, 3, 33, 33};
    return net;
  };
  // Convolutions with their norms, three each; biases and gates; the classifier's two.
  expect_step_agrees(small("resnet18d", {}), {.threads = 2}, 3 * (3 + 4 + 1) + 2);
  expect_step_agrees(small("seresnet50", {}), {}, 3 * (1 + 6 + 2) + 2 * 4 + 2);
  expect_step_agrees(small("ecaresnet50d", {}), {.threads = 2}, 3 * (3 + 6 + 2) + 2 + 2);
  expect_step_agrees(small("resnetblur50", {}), {.threads = 2}, 3 * (1 + 6 + 2) + 2);
  // The stem and two projections have no norm of their own, the last norm no convolution.
  expect_step_agrees(small("resnetv2_50", {}), {}, 3 * 6 + 1 + 2 + 2 + 2);
  expect_step_agrees(small("preresnet11_cifar", {.drop_path = 0.4}), {.threads = 2}, 3 * 6 + 1 + 2 + 2 + 2);
  expect_step_agrees(small("wrn10_2_cifar", {.drop_path = 0.4}), {}, 3 * 4 + 1 + 2 + 2 + 2);
}

TEST(DropPath, FactorsAreAPureFunctionOfSeedEpochSampleAndBranch) {
  const DropPath branch{"layer1.1.drop_path", 0.25};
  int dropped = 0;
  std::map<std::string, int> same;
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) {
    const double factor = drop_path_factor(branch, 7, i / 1000, i % 1000);
    EXPECT_TRUE(factor == 0 || factor == 1 / 0.75);
    EXPECT_EQ(factor, drop_path_factor(branch, 7, i / 1000, i % 1000));
    dropped += factor == 0;
    same["seed"] += factor == drop_path_factor(branch, 8, i / 1000, i % 1000);
    same["epoch"] += factor == drop_path_factor(branch, 7, i / 1000 + 100, i % 1000);
    same["sample"] += factor == drop_path_factor(branch, 7, i / 1000, i % 1000 + 5000);
    same["branch"] += factor == drop_path_factor({"layer1.2.drop_path", 0.25}, 7, i / 1000, i % 1000);
  }
  // Five standard deviations of a binomial: sqrt(20000 * 0.25 * 0.75) = 61, sqrt(20000 * 0.625 * 0.375) = 68.
  EXPECT_NEAR(dropped, 5000, 306);
  for (const auto& [what, count] : same) EXPECT_NEAR(count, 12500, 342) << what << ": independent draws agree so often";
}

TEST_F(WholeNet, AStepWithStochasticDepthDropsBranchesOfSingleImages) {
  Net net = shallow("resnet8_cifar_a", {.drop_path = 0.5});
  const Tensors some = train_one_step(net, {.backend = "reference", .dtype = DType::f64});
  net.options = {};
  const Tensors none = train_one_step(net, {.backend = "reference", .dtype = DType::f64});
  EXPECT_NE(scalar(some, "loss"), scalar(none, "loss"));
  // The first block is never dropped, so what its layers see, and their statistics, are the same.
  EXPECT_EQ(some.at("layer1.0.bn2.running_mean"), none.at("layer1.0.bn2.running_mean"));
  EXPECT_EQ(some.at("layer2.0.bn2.running_mean"), none.at("layer2.0.bn2.running_mean"));
  EXPECT_NE(some.at("layer3.0.bn2.running_mean"), none.at("layer3.0.bn2.running_mean"));
}

TEST_F(WholeNet, PassesChangeNothingButRounding) {
  const Net net = small_net();
  const Tensors with = train_one_step(net, {.backend = "reference", .dtype = DType::f64});
  const Tensors without = train_one_step(net, {.backend = "reference", .dtype = DType::f64, .passes = false});
  ASSERT_EQ(with.size(), without.size());
  for (const auto& [name, t] : with) {
    const std::vector<double> expected = values<double>(t);
    ASSERT_EQ(without.at(name).type(), t.type());
    for (size_t i = 0; i < expected.size(); ++i)
      EXPECT_NEAR(without.at(name).as<double>()[i], expected[i], 1e-12) << name;
  }
  // On the cpu the zero gradients of biases come back as noise, which is left out by their size.
  ScopedEnvironment environment("RESNET_CONV_ALGORITHM", "direct");
  const Distances d = distances(train_one_step(net, {.passes = false}), with, "gradient:");
  EXPECT_EQ(d.counted, 16);
  EXPECT_LE(d.worst, 1e-3) << d.where;
}

TEST_F(WholeNet, TheSameStepTwiceIsTheSameBits) {
  const Net net = small_net();
  ScopedEnvironment environment("RESNET_CONV_ALGORITHM", "winograd");
  EXPECT_EQ(train_one_step(net, {.threads = 2}), train_one_step(net, {.threads = 2}));
}

Tensor logits_of(const Net& net, const Setup& setup) {
  Session session(make_backend(setup.backend, setup.threads));
  InferenceProgram program(
      session, net.spec,
      {.model = net.options, .dtype = setup.dtype, .images = net.images, .passes = pass_options(setup.passes)});
  write_states(session, in_type(first_values(net, 7), setup.dtype));
  program.refresh();
  Rng rng(mix(3));
  const Tensor images = convert(random_floats(net.images, rng, 0, 1), setup.dtype);
  const Tensor all = program.run(images);
  // A batch that is not full gives the same rows.
  Tensor one(images.dtype(), {1, net.images[1], net.images[2], net.images[3]});
  std::memcpy(one.data(), images.data(), one.size_bytes());
  const Tensor first = program.run(one);
  EXPECT_EQ(std::memcmp(first.data(), all.data(), first.size_bytes()), 0);
  EXPECT_EQ(first.shape(), (Shape{1, all.shape()[1]}));
  return all;
}

TEST_F(WholeNet, InferenceLogitsAgreeWithDoubleFoldedOrNot) {
  for (const Net& net : {small_net(), published("lecture_resnet18", 32), published("resnet18", 32),
                         shallow("resnet8_cifar_a"), shallow("resnet8_cifar_b", {.batch_norm = false}),
                         shallow("resnet8_mlp"), shallow("ecaresnet50d", {.blocks = {1, 1}}),
                         shallow("seresnet50", {.blocks = {1, 1}}), shallow("resnetv2_50", {.blocks = {1, 1}}),
                         shallow("preresnet11_cifar", {.drop_path = 0.5}), shallow("wrn10_1_cifar")}) {
    const Tensor expected = logits_of(net, {.backend = "reference", .dtype = DType::f64, .passes = false});
    EXPECT_LE(relative_distance(logits_of(net, {.threads = 2}), expected), 1e-4) << net.spec.name;
    EXPECT_LE(relative_distance(logits_of(net, {.passes = false}), expected), 1e-4) << net.spec.name;
    EXPECT_LE(relative_distance(logits_of(net, {.backend = "reference", .dtype = DType::f64}), expected), 1e-12)
        << net.spec.name;
  }
}

}  // namespace
}  // namespace resnet
