#include "ops/fill.h"

#include "ops/evaluate.h"

namespace resnet {
namespace {

using namespace testing;

TEST(Fill, EveryElementIsTheValue) {
  Graph g;
  g.set_output("scalar", fill(g, f64_type({}), 0.05));
  g.set_output("single", fill(g, f32_type({2, 2}), 3));
  const Tensors out = evaluate(g, {});
  expect_near(out.at("scalar"), {0.05});
  EXPECT_EQ(values<float>(out.at("single")), (std::vector<float>{3, 3, 3, 3}));
}

TEST(Fill, TheValueIsInTheText) {
  Graph g;
  g.set_output("y", fill(g, f32_type({2}), 1.5));
  EXPECT_NE(print(g).find("fill() type=f32[2] value=1.5 -> f32[2]"), std::string::npos) << print(g);
}

}  // namespace
}  // namespace resnet
