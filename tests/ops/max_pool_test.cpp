#include "ops/max_pool.h"

#include <cmath>
#include <limits>
#include <numeric>

#include "ops/gradient_check.h"

namespace resnet {
namespace {

using namespace testing;

struct Pooled {
  std::vector<double> y;
  std::vector<int> index;
};

Pooled pool(const Tensor& x, PoolAttrs attrs) {
  Graph g;
  const Value y = max_pool(g.input("x", x.type()), attrs);
  g.set_output("y", y);
  g.set_output("index", g.value(y.node, 1));
  const Tensors out = evaluate(g, {{"x", x}});
  const auto index = out.at("index").as<uint8_t>();
  return {values<double>(out.at("y")), {index.begin(), index.end()}};
}

const PoolAttrs kStem{.kernel = {3, 3}, .stride = {2, 2}, .pad = {1, 1}};

TEST(MaxPool, HandComputedCaseWithPadding) {
  const Pooled p = pool(f64({1, 1, 3, 3}, {1, 2, 3, 4, 5, 6, 9, 8, 7}), kStem);
  EXPECT_EQ(p.y, (std::vector<double>{5, 6, 9, 8}));
  EXPECT_EQ(p.index, (std::vector<int>{8, 7, 4, 3}));
}

TEST(MaxPool, PaddingNeverWinsAndTheFirstOfEqualsCounts) {
  const Pooled p = pool(f64({1, 1, 2, 2}, {-7, -7, -7, -7}), kStem);
  EXPECT_EQ(p.y, std::vector<double>{-7});
  EXPECT_EQ(p.index, std::vector<int>{4});  // the window's centre is the first element inside the image
}

TEST(MaxPool, NaNWins) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Pooled p = pool(f64({1, 1, 1, 3}, {1, nan, 5}), {.kernel = {1, 3}, .stride = {1, 1}});
  EXPECT_TRUE(std::isnan(p.y[0]));
  EXPECT_EQ(p.index[0], 1);
}

TEST(MaxPool, OfTwoNaNsTheLastWinsAndTakesTheGradient) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  Graph g;
  const Value x = g.input("x", f64_type({1, 1, 1, 4}));
  const Value y = max_pool(x, {.kernel = {1, 4}, .stride = {1, 1}});
  const std::pair<Value, Value> seed{y, g.input("dy", f64_type({1, 1, 1, 1}))};
  const std::vector<Value> wrt{x};
  g.set_output("y", y);
  g.set_output("index", g.value(y.node, 1));
  g.set_output("dx", gradients(g, std::span(&seed, 1), wrt)[0]);
  const Tensors out = evaluate(g, {{"x", f64({1, 1, 1, 4}, {nan, 9, nan, 9})}, {"dy", f64({1, 1, 1, 1}, {3})}});
  EXPECT_TRUE(std::isnan(out.at("y").as<double>()[0]));
  EXPECT_EQ(out.at("index").as<uint8_t>()[0], 2);
  expect_near(out.at("dx"), {0, 0, 3, 0}, 0);
}

TEST(MaxPool, MinusInfinityIsAValueLikeAnother) {
  const double low = -std::numeric_limits<double>::infinity();
  const Pooled p = pool(f64({1, 1, 2, 2}, {low, low, low, low}), kStem);
  EXPECT_EQ(p.y[0], low);
  EXPECT_EQ(p.index[0], 4);
}

TEST(MaxPool, GradientAgreesWithCentralDifferences) {
  check_gradients(20, [](Rng& rng) {
    PoolAttrs attrs;
    attrs.kernel = {draw_between(rng, 1, 3), draw_between(rng, 1, 3)};
    attrs.stride = {draw_between(rng, 1, 3), draw_between(rng, 1, 3)};
    attrs.pad = {draw_between(rng, 0, attrs.kernel.h / 2), draw_between(rng, 0, attrs.kernel.w / 2)};
    const Shape shape{draw_between(rng, 1, 2), draw_between(rng, 1, 2), draw_between(rng, attrs.kernel.h, 6),
                      draw_between(rng, attrs.kernel.w, 7)};
    // Distinct values, far apart: a difference must not change the winner.
    Tensor x(DType::f64, shape);
    const auto elements = x.as<double>();
    std::iota(elements.begin(), elements.end(), 0.0);
    for (size_t i = elements.size(); i > 1; --i) std::swap(elements[i - 1], elements[rng.below(i)]);
    GradientCase c;
    c.inputs = {{"x", x}};
    c.build = [attrs](Graph&, const Leaves& in) { return max_pool(in.at("x"), attrs); };
    return c;
  });
}

TEST(MaxPool, ShapeErrorsNameThePathAndTheShape) {
  Graph g;
  const Value x = g.input("x", f32_type({1, 2, 4, 40}));
  expect_user_error(
      [&] {
        max_pool(x, {.kernel = {5, 1}}, "0.3");
      },
      {"max_pool '0.3'", "1x2x4x40", "spans 5", "height"});
  expect_user_error([&] { max_pool(x, {.kernel = {3, 3}, .pad = {2, 1}}, "0.3"); }, {"'0.3'", "pad 2x1", "kernel 3x3"});
  expect_user_error([&] { max_pool(x, {.kernel = {0, 3}}); }, {"kernel", "height", "0"});
  expect_user_error([&] { max_pool(x, {.kernel = {2, 2}, .stride = {1, 0}}); }, {"stride", "width", "0"});
  const Value large = g.input("large", f32_type({1, 1, 16, 16}));
  expect_user_error([&] { max_pool(large, {.kernel = {16, 16}}); }, {"16x16", "256", "255"});
  expect_user_error([&] { max_pool(g.input("flat", f32_type({1, 2})), {}); }, {"1x2", "4 axes"});
}

}  // namespace
}  // namespace resnet
