#include "ops/avg_pool.h"

#include "ops/gradient_check.h"

namespace resnet {
namespace {

using namespace testing;

Tensor pool(const Tensor& x, PoolAttrs attrs) {
  Graph g;
  g.set_output("y", avg_pool(g.input("x", x.type()), attrs));
  return evaluate(g, {{"x", x}}).at("y");
}

TEST(AvgPool, PaddingCountsUnlessToldOtherwise) {
  const Tensor x = f64({1, 1, 2, 2}, {1, 2, 3, 6});
  PoolAttrs attrs{.kernel = {3, 3}, .stride = {1, 1}, .pad = {1, 1}};
  expect_near(pool(x, attrs), {12.0 / 9, 12.0 / 9, 12.0 / 9, 12.0 / 9});
  attrs.count_include_pad = false;
  expect_near(pool(x, attrs), {3, 3, 3, 3});
}

TEST(AvgPool, AStrideLeavesTheRestOut) {
  expect_near(pool(f64({1, 1, 3, 3}, {1, 2, 9, 3, 6, 9, 9, 9, 9}), {.kernel = {2, 2}, .stride = {2, 2}}), {3});
}

TEST(AvgPool, InCeilModeTheLastPixelsAreAveragedWithWhatThereIs) {
  const Tensor x = f64({1, 1, 3, 3}, {1, 2, 9, 3, 6, 9, 8, 4, 5});
  PoolAttrs attrs{.kernel = {2, 2}, .stride = {2, 2}, .ceil_mode = true};
  expect_near(pool(x, attrs), {3, 9, 6, 5});  // what lies behind the edge is no padding, so it never counts
  attrs.count_include_pad = false;
  expect_near(pool(x, attrs), {3, 9, 6, 5});
  expect_near(pool(f64({1, 1, 1, 1}, {7}), attrs), {7});
}

TEST(AvgPool, GradientAgreesWithCentralDifferences) {
  check_gradients(20, [](Rng& rng) {
    PoolAttrs attrs;
    attrs.kernel = {draw_between(rng, 1, 3), draw_between(rng, 1, 4)};
    attrs.stride = {draw_between(rng, 1, 3), draw_between(rng, 1, 3)};
    attrs.pad = {draw_between(rng, 0, attrs.kernel.h / 2), draw_between(rng, 0, attrs.kernel.w / 2)};
    attrs.count_include_pad = rng.below(2) == 0;
    attrs.ceil_mode = rng.below(2) == 0;
    GradientCase c;
    c.inputs = {{"x", random_tensor({draw_between(rng, 1, 2), draw_between(rng, 1, 2),
                                     draw_between(rng, attrs.kernel.h, 5), draw_between(rng, attrs.kernel.w, 6)},
                                    rng)}};
    c.build = [attrs](Graph&, const Leaves& in) { return avg_pool(in.at("x"), attrs); };
    return c;
  });
}

TEST(AvgPool, ShapeErrorsNameThePathAndTheShape) {
  Graph g;
  const Value x = g.input("x", f32_type({1, 2, 4, 4}));
  expect_user_error([&] { avg_pool(x, {.kernel = {5, 5}}, "pool"); }, {"avg_pool 'pool'", "1x2x4x4", "spans 5"});
  expect_user_error(
      [&] {
        avg_pool(x, {.kernel = {2, 2}, .pad = {0, 2}}, "pool");
      },
      {"'pool'", "pad 0x2", "kernel 2x2"});
}

}  // namespace
}  // namespace resnet
