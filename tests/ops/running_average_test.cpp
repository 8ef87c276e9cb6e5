#include "ops/running_average.h"

#include <limits>

#include "ops/evaluate.h"

namespace resnet {
namespace {

using namespace testing;

Tensor average(double guard) {
  Graph g;
  const Value running = g.state("running", f64_type({2}), {}, false);
  g.assign(running, running_average(running, g.input("batch", f64_type({2})), g.input("guard", f64_type({})),
                                    {.momentum = 0.1, .scale = 2}));
  return evaluate(g, {{"running", f64({2}, {1, -1})}, {"batch", f64({2}, {5, 10})}, {"guard", f64({}, {guard})}})
      .at("running");
}

TEST(RunningAverage, MixesTheScaledBatchIn) { expect_near(average(1), {1.9, 1.1}); }

TEST(RunningAverage, NothingMovesWhenTheLossIsNotFinite) {
  expect_near(average(std::numeric_limits<double>::quiet_NaN()), {1, -1});
  expect_near(average(std::numeric_limits<double>::infinity()), {1, -1});
}

TEST(RunningAverage, UnequalShapesAreRefused) {
  Graph g;
  expect_user_error(
      [&] {
        running_average(g.input("r", f32_type({2})), g.input("b", f32_type({3})), g.input("g", f32_type({})), {},
                        "bn1");
      },
      {"running_average 'bn1'", "f32[3]", "f32[2]"});
}

}  // namespace
}  // namespace resnet
