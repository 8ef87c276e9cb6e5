#include "ops/linear.h"

#include "ops/gradient_check.h"

namespace resnet {
namespace {

using namespace testing;

TEST(Linear, HandComputedCase) {
  Graph g;
  g.set_output("y",
               linear(g.input("x", f64_type({2, 3})), g.input("w", f64_type({2, 3})), g.input("b", f64_type({2}))));
  const Tensors out = evaluate(
      g, {{"x", f64({2, 3}, {1, 2, 3, -1, 0, 1})}, {"w", f64({2, 3}, {1, 0, 2, 3, 1, 0})}, {"b", f64({2}, {10, 20})}});
  expect_near(out.at("y"), {17, 25, 11, 17});
}

TEST(Linear, GradientsAgreeWithCentralDifferences) {
  check_gradients(20, [](Rng& rng) {
    const int64_t inputs = draw_between(rng, 1, 9);
    const int64_t outputs = draw_between(rng, 1, 5);
    const bool bias = rng.below(2) == 0;
    GradientCase c;
    c.inputs = {{"x", random_tensor({draw_between(rng, 1, 6), inputs}, rng)},
                {"w", random_tensor({outputs, inputs}, rng)}};
    if (bias) c.inputs["b"] = random_tensor({outputs}, rng);
    c.build = [bias](Graph&, const Leaves& in) { return linear(in.at("x"), in.at("w"), bias ? in.at("b") : Value{}); };
    return c;
  });
}

TEST(Linear, ShapeErrorsNameThePathAndBothShapes) {
  Graph g;
  const Value x = g.input("x", f32_type({4, 512}));
  const Value w = g.input("w", f32_type({10, 2048}));
  expect_user_error([&] { linear(x, w, {}, "fc"); }, {"linear 'fc'", "4x512", "10x2048 wants 2048"});
  const Value fit = g.input("fit", f32_type({10, 512}));
  expect_user_error([&] { linear(x, fit, g.input("b", f32_type({9})), "fc"); }, {"bias", "f32[9]", "f32[10]"});
  expect_user_error(
      [&] {
        linear(g.input("image", f32_type({4, 512, 1, 1})), fit, {}, "fc");
      },
      {"input", "4x512x1x1", "2 axes"});
}

TEST(Linear, CostCountsTwoFlopsAMultiplyAddInEveryDirection) {
  const TensorType x = f32_type({4, 5}), w = f32_type({3, 5}), y = f32_type({4, 3});
  EXPECT_EQ(kLinear.cost(LinearAttrs{}, std::vector{x, w}, std::vector{y}).flops, 120);
  EXPECT_EQ(kLinearInputGrad.cost(NoAttrs{}, std::vector{y, w}, std::vector{x}).flops, 120);
  EXPECT_EQ(kLinearWeightGrad.cost(NoAttrs{}, std::vector{x, y}, std::vector{w}).flops, 120);
}

}  // namespace
}  // namespace resnet
