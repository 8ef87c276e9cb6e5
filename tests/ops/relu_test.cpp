#include "ops/relu.h"

#include <cmath>
#include <limits>

#include "ops/fill.h"
#include "ops/gradient_check.h"

namespace resnet {
namespace {

using namespace testing;

TEST(Relu, KeepsPositivesAndNaN) {
  Graph g;
  g.set_output("y", relu(g.input("x", f64_type({5}))));
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Tensors out = evaluate(g, {{"x", f64({5}, {-2, -0.0, 0, 3, nan})}});
  const auto y = out.at("y").as<double>();
  EXPECT_EQ(std::vector<double>(y.begin(), y.begin() + 4), (std::vector<double>{0, 0, 0, 3}));
  EXPECT_TRUE(std::isnan(y[4]));
}

TEST(Relu, DerivativeAtZeroIsZero) {
  Graph g;
  const Value x = g.input("x", f64_type({3}));
  const std::vector<Value> wrt{x};
  g.set_output("dx", gradients(relu(x), wrt)[0]);
  expect_near(evaluate(g, {{"x", f64({3}, {-1, 0, 1})}}).at("dx"), {0, 0, 1});
}

TEST(Relu, GradientAgreesWithCentralDifferences) {
  check_gradients(10, [](Rng& rng) {
    GradientCase c;
    c.inputs = {{"x", random_tensor({draw_between(rng, 1, 3), draw_between(rng, 1, 5)}, rng)}};
    c.build = [](Graph&, const Leaves& in) { return relu(in.at("x")); };
    return c;
  });
}

std::vector<Value> zero_gradient(GradContext& context) { return {fill(context.graph, context.input(0).type(), 0)}; }
std::vector<TensorType> relu_shape(const InferCall& call) { return kRelu.infer(call); }
void relu_ref(const RefCall& call) { kRelu.ref(call); }
Cost relu_cost(const Attributes& a, std::span<const TensorType> in, std::span<const TensorType> out) {
  return kRelu.cost(a, in, out);
}
const OpDef kForgetful = {
    .name = "forgetful_relu", .infer = relu_shape, .grad = zero_gradient, .ref = relu_ref, .cost = relu_cost};

TEST(GradientCheck, AZeroedGradientRuleFails) {
  Rng rng(1);
  GradientCase c;
  c.inputs = {{"x", f64({4}, {-1, 0.5, 1, 2})}};
  c.build = [](Graph& g, const Leaves& in) { return g.add(kForgetful, {in.at("x")}); };
  const GradientReport report = compare_gradients(c, rng);
  EXPECT_GT(report.worst, 1e-2);
  EXPECT_NE(report.where.find("d/dx["), std::string::npos);
}

TEST(GradientCheck, AnInputAtTheKinkIsNoticed) {
  Rng rng(1);
  GradientCase c;
  c.inputs = {{"x", f64({2}, {1, 0})}};
  c.build = [](Graph&, const Leaves& in) { return relu(in.at("x")); };
  EXPECT_TRUE(compare_gradients(c, rng).near_kink);
}

TEST(Relu, IntegersAreRefused) {
  Graph g;
  expect_user_error([&] { relu(g.input("x", {DType::i32, {4}}), "act"); }, {"relu 'act'", "i32[4]", "f32 or f64"});
}

}  // namespace
}  // namespace resnet
