#include "ops/l2_norm.h"

#include "ops/gradient_check.h"

namespace resnet {
namespace {

using namespace testing;

TEST(L2Norm, IsTheRootOfTheSumOfSquaresOfEveryShape) {
  Graph g;
  g.set_output("map", l2_norm(g.input("x", f64_type({2, 1, 2, 1}))));
  g.set_output("vector", l2_norm(g.input("v", f64_type({2}))));
  g.set_output("scalar", l2_norm(g.input("s", f64_type({}))));
  const Tensors out =
      evaluate(g, {{"x", f64({2, 1, 2, 1}, {1, -2, 4, -10})}, {"v", f64({2}, {3, -4})}, {"s", f64({}, {-7})}});
  EXPECT_EQ(out.at("map").shape(), Shape{});
  expect_near(out.at("map"), {11});
  expect_near(out.at("vector"), {5});
  expect_near(out.at("scalar"), {7});
}

TEST(L2Norm, SquaresThatF32CannotHoldAreHeldInDouble) {
  for (const float size : {1e-30f, 1e30f}) {
    Graph g;
    g.set_output("y", l2_norm(g.input("x", f32_type({2}))));
    const float y = evaluate(g, {{"x", tensor<float>(DType::f32, {2}, {3 * size, 4 * size})}}).at("y").as<float>()[0];
    EXPECT_NEAR(y / size, 5, 1e-5);
  }
}

TEST(L2Norm, HasNoGradientAndTakesNoIntegers) {
  Graph g;
  const Value x = g.input("x", f64_type({3, 2}));
  const std::vector<Value> wrt{x};
  EXPECT_THROW(gradients(l2_norm(x), wrt), InternalError);
  expect_user_error([&] { l2_norm(g.input("i", {DType::i32, {4}}), "probe"); }, {"l2_norm 'probe'", "f32 or f64"});
}

}  // namespace
}  // namespace resnet
