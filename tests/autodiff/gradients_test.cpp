#include "autodiff/gradients.h"

#include "ops/add.h"
#include "ops/batch_norm.h"
#include "ops/conv2d.h"
#include "ops/fill.h"
#include "ops/global_avg_pool.h"
#include "ops/gradient_check.h"
#include "ops/linear.h"
#include "ops/max_pool.h"
#include "ops/relu.h"
#include "ops/reshape.h"
#include "ops/softmax_cross_entropy.h"

namespace resnet {
namespace {

using namespace testing;

TEST(Gradients, TheTermsOfAValueReadTwiceAreAdded) {
  Graph g;
  const Value x = g.input("x", f64_type({2}));
  const std::vector<Value> wrt{x};
  g.set_output("dx", gradients((x + x) + x, wrt)[0]);
  expect_near(evaluate(g, {{"x", f64({2}, {1, 2})}}).at("dx"), {3, 3});
}

TEST(Gradients, WhereNothingFlowsTheGradientIsZero) {
  Graph g;
  const Value x = g.input("x", f64_type({2}));
  const Value other = g.input("other", f64_type({3}));
  const std::vector<Value> wrt{other, x};
  const std::vector<Value> d = gradients(relu(x), wrt);
  EXPECT_EQ(g.node(d[0]).op, &kFill);
  EXPECT_EQ(d[0].type(), other.type());
  g.set_output("d", d[0]);
  expect_near(evaluate(g, {}).at("d"), {0, 0, 0});
}

TEST(Gradients, OfAnIntermediateValueAndOfTheOutputItself) {
  Graph g;
  const Value x = g.input("x", f64_type({2}));
  const Value middle = relu(x);
  const Value y = middle + middle;
  const std::vector<Value> wrt{middle, y};
  const std::vector<Value> d = gradients(y, wrt);
  g.set_output("middle", d[0]);
  g.set_output("y", d[1]);
  const Tensors out = evaluate(g, {});
  expect_near(out.at("middle"), {2, 2});
  expect_near(out.at("y"), {1, 1});
}

TEST(Gradients, SeveralOutputsAreWeightedByTheirCotangents) {
  Graph g;
  const Value x = g.input("x", f64_type({2}));
  const Value a = relu(x);
  const Value b = x + x;
  const std::vector<std::pair<Value, Value>> seeds{{a, g.input("ca", f64_type({2}))},
                                                   {b, g.input("cb", f64_type({2}))}};
  const std::vector<Value> wrt{x};
  g.set_output("dx", gradients(g, seeds, wrt)[0]);
  const Tensors out = evaluate(g, {{"x", f64({2}, {-1, 1})}, {"ca", f64({2}, {10, 10})}, {"cb", f64({2}, {1, 2})}});
  expect_near(out.at("dx"), {2, 14});
}

TEST(Gradients, ACotangentOfAnotherTypeIsOurBug) {
  Graph g;
  const Value x = g.input("x", f64_type({2}));
  const std::vector<std::pair<Value, Value>> seeds{{relu(x), g.input("c", f64_type({3}))}};
  const std::vector<Value> wrt{x};
  EXPECT_THROW(gradients(g, seeds, wrt), InternalError);
}

TEST(Gradients, OnlyNodesBetweenTheOutputAndWrtAreVisited) {
  Graph g;
  const Value x = g.input("x", f64_type({2, 3}));
  // A statistic of batch norm has no gradient, so visiting this branch would throw.
  const BatchNormResult bn =
      batch_norm_training(x, g.input("gamma", f64_type({3})), g.input("beta", f64_type({3})), 1e-5);
  const Value w = g.state("w", f64_type({3}), {}, true);
  const std::vector<Value> wrt{w};
  const size_t before = g.size();
  const Value dw = gradients(bn.mean + w, wrt)[0];
  EXPECT_EQ(g.size(), before + 2) << "the sum itself and the seed";
  EXPECT_EQ(g.node(dw).op, &kFill);
}

TEST(Gradients, GradientNodesHaveNoGradientOfTheirOwn) {
  Graph g;
  const Value x = g.input("x", f64_type({2}));
  const Value y = relu(x);
  const std::vector<Value> wrt{x};
  const Value dx = gradients(y, wrt)[0];
  EXPECT_THROW(gradients(dx, wrt), InternalError);
}

// The lecture's Residual: conv-BN-ReLU-conv-BN, plus the input or its 1x1 convolution, all convolutions with a bias.
struct Block {
  int64_t in, out, stride;
  bool projected;
};

Value residual(const Leaves& p, Value x, const Block& b) {
  auto bn = [&](const std::string& name, Value v) {
    return batch_norm_training(v, p.at(name + ".weight"), p.at(name + ".bias"), 1e-5, name).y;
  };
  auto conv = [&](const std::string& name, Value v, Conv2dAttrs attrs) {
    return conv2d(v, p.at(name + ".weight"), p.at(name + ".bias"), attrs, name);
  };
  Value y = relu(bn("bn1", conv("conv1", x, {.stride = {b.stride, b.stride}, .pad = {1, 1}})));
  y = bn("bn2", conv("conv2", y, {.pad = {1, 1}}));
  const Value shortcut = b.projected ? conv("conv3", x, {.stride = {b.stride, b.stride}}) : x;
  return relu(y + shortcut);
}

GradientCase residual_case(const Block& b, Rng& rng) {
  GradientCase c;
  c.inputs["x"] = random_tensor({2, b.in, 3, 3}, rng);
  auto conv = [&](const std::string& name, int64_t in, int64_t size) {
    c.inputs[name + ".weight"] = random_tensor({b.out, in, size, size}, rng);
    c.inputs[name + ".bias"] = random_tensor({b.out}, rng);
  };
  conv("conv1", b.in, 3);
  conv("conv2", b.out, 3);
  if (b.projected) conv("conv3", b.in, 1);
  for (const char* name : {"bn1", "bn2"}) {
    c.inputs[std::string(name) + ".weight"] = random_tensor({b.out}, rng);
    c.inputs[std::string(name) + ".bias"] = random_tensor({b.out}, rng);
  }
  c.build = [b](Graph&, const Leaves& in) { return residual(in, in.at("x"), b); };
  return c;
}

TEST(Gradients, ResidualBlockWithTheIdentityAgreesWithCentralDifferences) {
  check_gradients(4, [](Rng& rng) { return residual_case({3, 3, 1, false}, rng); });
}

TEST(Gradients, ResidualBlockWithA1x1ConvolutionAgreesWithCentralDifferences) {
  check_gradients(4, [](Rng& rng) { return residual_case({2, 4, 2, true}, rng); });
}

TEST(Gradients, AWholeSmallNetWithItsLossAgreesWithCentralDifferences) {
  check_gradients(3, [](Rng& rng) {
    GradientCase c = residual_case({2, 2, 1, false}, rng);
    c.inputs["x"] = random_tensor({3, 2, 7, 7}, rng);
    c.inputs["fc.weight"] = random_tensor({4, 2}, rng);
    c.inputs["fc.bias"] = random_tensor({4}, rng);
    c.inputs["labels"] = i32({3}, {0, 3, 1});
    c.build = [](Graph&, const Leaves& in) {
      const Value stem = max_pool(in.at("x"), {.kernel = {3, 3}, .stride = {2, 2}, .pad = {1, 1}});
      const Value y = flatten(global_avg_pool(residual(in, stem, {2, 2, 1, false})));
      return softmax_cross_entropy(linear(y, in.at("fc.weight"), in.at("fc.bias")), in.at("labels"), 0.1).loss;
    };
    return c;
  });
}

// Three branches of one value, built in the order given; the gradient sums three terms.
std::string three_branches(const std::vector<int>& creation) {
  Graph g;
  const Value x = g.input("x", f64_type({2, 3}));
  std::map<int, Value> built;
  for (int i : creation) {
    const std::string name = "branch" + std::to_string(i);
    built[i] = linear(x, g.state(name + ".weight", f64_type({3, 3}), {}, true), {}, name);
  }
  const std::vector<Value> wrt{x};
  g.set_output("dx", gradients((built[0] + built[1]) + built[2], wrt)[0]);
  return print(g);
}

TEST(Gradients, TheOrderOfCreationDoesNotShow) {
  const std::string first = three_branches({0, 1, 2});
  for (const std::vector<int>& creation :
       {std::vector{0, 2, 1}, std::vector{1, 0, 2}, std::vector{1, 2, 0}, std::vector{2, 0, 1}, std::vector{2, 1, 0}}) {
    EXPECT_EQ(three_branches(creation), first);
  }
}

TEST(Gradients, ThousandsOfLayersAddAFixedNumberOfNodesEach) {
  auto added = [](int layers) {
    Graph g;
    const Value x = g.input("x", f32_type({1, 4}));
    const Value w = g.state("w", f32_type({4, 4}), {}, true);
    Value y = x;
    for (int i = 0; i < layers; ++i) y = relu(y + linear(y, w, {}, "layer" + std::to_string(i)));
    const size_t before = g.size();
    const std::vector<Value> wrt{w};
    gradients(y, wrt);
    return g.size() - before;
  };
  const size_t few = added(1000);
  const size_t more = added(2000);
  const size_t most = added(20000);
  EXPECT_EQ((most - few) / 19000, (more - few) / 1000);
  EXPECT_EQ((most - few) % 19000, 0u);
}

}  // namespace
}  // namespace resnet
