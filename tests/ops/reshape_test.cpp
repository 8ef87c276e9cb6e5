#include "ops/reshape.h"

#include "ops/gradient_check.h"

namespace resnet {
namespace {

using namespace testing;

TEST(Reshape, FlattenKeepsTheBatchAndTheOrder) {
  Graph g;
  const Value y = flatten(g.input("x", f64_type({2, 3, 1, 2})));
  EXPECT_EQ(y.shape(), (Shape{2, 6}));
  g.set_output("y", y);
  const std::vector<double> elements{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  expect_near(evaluate(g, {{"x", f64({2, 3, 1, 2}, elements)}}).at("y"), elements);
}

TEST(Reshape, MovesIntegersToo) {
  Graph g;
  g.set_output("y", reshape(g.input("x", {DType::i32, {2, 2}}), {4}));
  EXPECT_EQ(values<int32_t>(evaluate(g, {{"x", i32({2, 2}, {1, 2, 3, 4})}}).at("y")),
            (std::vector<int32_t>{1, 2, 3, 4}));
}

TEST(Reshape, GradientAgreesWithCentralDifferences) {
  check_gradients(5, [](Rng& rng) {
    GradientCase c;
    c.inputs = {{"x", random_tensor({draw_between(rng, 1, 3), 2, draw_between(rng, 1, 3)}, rng)}};
    c.build = [](Graph&, const Leaves& in) { return flatten(in.at("x")); };
    return c;
  });
}

TEST(Reshape, AnotherNumberOfElementsIsRefusedWithBothShapes) {
  Graph g;
  expect_user_error(
      [&] {
        reshape(g.input("x", f32_type({2, 3})), {4, 2}, "r");
      },
      {"reshape 'r'", "2x3 has 6", "4x2 has 8"});
}

}  // namespace
}  // namespace resnet
