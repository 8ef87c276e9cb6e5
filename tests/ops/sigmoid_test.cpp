#include "ops/sigmoid.h"

#include <cmath>
#include <limits>

#include "ops/gradient_check.h"

namespace resnet {
namespace {

using namespace testing;

TEST(Sigmoid, SaturatesWithoutOverflowAndKeepsNaN) {
  Graph g;
  g.set_output("y", sigmoid(g.input("x", f64_type({5}))));
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Tensor y = evaluate(g, {{"x", f64({5}, {-1000, 0, 1000, std::log(3.0), nan})}}).at("y");
  EXPECT_EQ(y.as<double>()[0], 0);
  EXPECT_EQ(y.as<double>()[1], 0.5);
  EXPECT_EQ(y.as<double>()[2], 1);
  EXPECT_NEAR(y.as<double>()[3], 0.75, 1e-15);
  EXPECT_TRUE(std::isnan(y.as<double>()[4]));
}

TEST(Sigmoid, GradientAgreesWithCentralDifferences) {
  check_gradients(10, [](Rng& rng) {
    GradientCase c;
    Tensor x = random_tensor({draw_between(rng, 1, 3), draw_between(rng, 1, 5)}, rng);
    for (double& value : x.as<double>()) value *= 4;
    c.inputs = {{"x", x}};
    c.build = [](Graph&, const Leaves& in) { return sigmoid(in.at("x")); };
    return c;
  });
}

TEST(Sigmoid, IntegersAreRefused) {
  Graph g;
  expect_user_error(
      [&] {
        sigmoid(g.input("x", {DType::i32, {4}}), "gate");
      },
      {"sigmoid 'gate'", "i32[4]", "f32 or f64"});
}

}  // namespace
}  // namespace resnet
