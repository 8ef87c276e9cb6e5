#include "ops/scale.h"

#include "ops/gradient_check.h"

namespace resnet {
namespace {

using namespace testing;

Tensor scaled(const Tensor& x, const Tensor& s) {
  Graph g;
  g.set_output("y", scale(g.input("x", x.type()), g.input("s", s.type())));
  return evaluate(g, {{"x", x}, {"s", s}}).at("y");
}

TEST(Scale, AFactorIsOfAMapOrOfAnImage) {
  const Tensor x = f64({2, 2, 1, 2}, {1, 2, 3, 4, 5, 6, 7, 8});
  expect_near(scaled(x, f64({2, 2, 1, 1}, {1, 10, 0, -1})), {1, 2, 30, 40, 0, 0, -7, -8});
  expect_near(scaled(x, f64({2}, {0, 2})), {0, 0, 0, 0, 10, 12, 14, 16});
}

TEST(Scale, GradientAgreesWithCentralDifferences) {
  check_gradients(20, [](Rng& rng) {
    const Shape x{draw_between(rng, 1, 3), draw_between(rng, 1, 3), draw_between(rng, 1, 3), draw_between(rng, 1, 3)};
    const Shape s = rng.below(2) == 0 ? Shape{x[0], x[1], 1, 1} : Shape{x[0]};
    GradientCase c;
    c.inputs = {{"x", random_tensor(x, rng)}, {"s", random_tensor(s, rng)}};
    c.build = [](Graph&, const Leaves& in) { return scale(in.at("x"), in.at("s")); };
    return c;
  });
}

TEST(Scale, AFactorOfAnotherShapeIsRefusedWithThoseThatFit) {
  Graph g;
  const Value x = g.input("x", f32_type({2, 3, 4, 4}));
  for (const Shape& s : {Shape{3}, Shape{2, 3}, Shape{2, 1, 1, 1}, Shape{2, 3, 4, 4}}) {
    expect_user_error([&] { scale(x, g.input("s" + s.str(), f32_type(s)), "gate"); },
                      {"scale 'gate'", s.str(), "2x3x4x4", "[2,3,1,1]", "[2]"});
  }
  expect_user_error([&] { scale(g.input("rows", f32_type({2, 3})), x, "gate"); }, {"scale 'gate'", "2x3", "N,C,H,W"});
}

}  // namespace
}  // namespace resnet
