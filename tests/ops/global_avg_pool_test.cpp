#include "ops/global_avg_pool.h"

#include "ops/gradient_check.h"

namespace resnet {
namespace {

using namespace testing;

TEST(GlobalAvgPool, AveragesEachPlane) {
  Graph g;
  const Value y = global_avg_pool(g.input("x", f64_type({1, 2, 1, 3})));
  EXPECT_EQ(y.shape(), (Shape{1, 2, 1, 1}));
  g.set_output("y", y);
  expect_near(evaluate(g, {{"x", f64({1, 2, 1, 3}, {1, 2, 6, -1, -1, -1})}}).at("y"), {3, -1});
}

TEST(GlobalAvgPool, GradientAgreesWithCentralDifferences) {
  check_gradients(10, [](Rng& rng) {
    GradientCase c;
    c.inputs = {{"x", random_tensor({draw_between(rng, 1, 3), draw_between(rng, 1, 3), draw_between(rng, 1, 4),
                                     draw_between(rng, 1, 5)},
                                    rng)}};
    c.build = [](Graph&, const Leaves& in) { return global_avg_pool(in.at("x")); };
    return c;
  });
}

TEST(GlobalAvgPool, AFlatInputIsRefused) {
  Graph g;
  expect_user_error(
      [&] {
        global_avg_pool(g.input("x", f32_type({4, 3})), "6");
      },
      {"global_avg_pool '6'", "shape 4x3", "N,C,H,W"});
}

}  // namespace
}  // namespace resnet
