#include "ops/add.h"

#include "ops/gradient_check.h"

namespace resnet {
namespace {

using namespace testing;

TEST(Add, AddsElementByElement) {
  Graph g;
  g.set_output("y", g.input("a", f64_type({2, 2})) + g.input("b", f64_type({2, 2})));
  expect_near(evaluate(g, {{"a", f64({2, 2}, {1, 2, 3, 4})}, {"b", f64({2, 2}, {10, 20, 30, 40})}}).at("y"),
              {11, 22, 33, 44});
}

TEST(Add, GradientAgreesWithCentralDifferences) {
  check_gradients(10, [](Rng& rng) {
    const Shape shape{draw_between(rng, 1, 3), draw_between(rng, 1, 3)};
    GradientCase c;
    c.inputs = {{"a", random_tensor(shape, rng)}, {"b", random_tensor(shape, rng)}};
    c.build = [](Graph&, const Leaves& in) { return in.at("a") + in.at("b") + in.at("a"); };
    return c;
  });
}

TEST(Add, UnequalShapesAreRefusedWithBoth) {
  Graph g;
  const Value a = g.input("a", f32_type({4, 3, 6, 6}));
  const Value b = g.input("b", f32_type({4, 6, 3, 3}));
  expect_user_error([&] { add(a, b, "2.0"); }, {"add '2.0'", "f32[4x3x6x6]", "f32[4x6x3x3]", "1x1 convolution"});
}

}  // namespace
}  // namespace resnet
