#include "ops/sgd_update.h"

#include <cmath>
#include <limits>

#include "ops/evaluate.h"

namespace resnet {
namespace {

using namespace testing;

Tensors step(SgdAttrs attrs, double param, double grad, double buffer, double guard) {
  Graph g;
  const TensorType one = f64_type({1});
  const Value p = g.state("param", one, {}, true);
  const Value b = attrs.momentum != 0 ? g.state("buffer", one, {}, false) : Value{};
  const SgdUpdateResult r =
      sgd_update(p, g.input("grad", one), g.input("lr", f64_type({})), g.input("guard", f64_type({})), b, attrs);
  g.assign(p, r.param);
  EXPECT_EQ(static_cast<bool>(r.buffer), attrs.momentum != 0);
  if (r.buffer) g.assign(b, r.buffer);
  return evaluate(g, {{"param", f64({1}, {param})},
                      {"grad", f64({1}, {grad})},
                      {"buffer", f64({1}, {buffer})},
                      {"lr", f64({}, {0.1})},
                      {"guard", f64({}, {guard})}});
}

TEST(SgdUpdate, PlainStep) { expect_near(step({}, 2, 3, 0, 1).at("param"), {1.7}); }

TEST(SgdUpdate, WeightDecayJoinsTheGradient) {
  expect_near(step({.weight_decay = 0.5}, 2, 3, 0, 1).at("param"), {1.6});
}

TEST(SgdUpdate, MomentumAccumulates) {
  const Tensors out = step({.momentum = 0.9}, 2, 3, 10, 1);
  expect_near(out.at("buffer"), {12});
  expect_near(out.at("param"), {0.8});
}

TEST(SgdUpdate, NesterovLooksAhead) {
  const Tensors out = step({.momentum = 0.9, .weight_decay = 0.5, .nesterov = true}, 2, 3, 10, 1);
  expect_near(out.at("buffer"), {13});             // 0.9 * 10 + (3 + 0.5 * 2)
  expect_near(out.at("param"), {2 - 0.1 * 15.7});  // 4 + 0.9 * 13
}

TEST(SgdUpdate, NothingMovesWhenTheLossIsNotFinite) {
  for (double guard : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
                       -std::numeric_limits<double>::infinity()}) {
    const Tensors out = step({.momentum = 0.9, .weight_decay = 0.5}, 2, guard, 10, guard);
    expect_near(out.at("param"), {2});
    expect_near(out.at("buffer"), {10});
  }
}

TEST(SgdUpdate, MayBeDoneInPlaceOverBothStates) {
  ASSERT_EQ(kSgdUpdate.in_place.size(), 2u);
  Tensor param = f64({2}, {2, 4});
  Tensor buffer = f64({2}, {10, 20});
  const Tensor grad = f64({2}, {3, 5}), lr = f64({}, {0.1}), guard = f64({}, {1});
  const std::vector<ConstView> in{{&param.type(), param.data()},
                                  {&grad.type(), grad.data()},
                                  {&lr.type(), lr.data()},
                                  {&guard.type(), guard.data()},
                                  {&buffer.type(), buffer.data()}};
  const std::vector<View> out{{&param.type(), param.data()}, {&buffer.type(), buffer.data()}};
  const Attributes attributes = SgdAttrs{.momentum = 0.9};
  kSgdUpdate.ref(RefCall{attributes, in, out});
  expect_near(buffer, {12, 23});
  expect_near(param, {0.8, 1.7});
}

TEST(SgdUpdate, BadSettingsAreRefused) {
  Graph g;
  const TensorType type = f32_type({3});
  const Value p = g.input("p", type);
  const Value scalar = g.input("s", f32_type({}));
  auto with = [&](SgdAttrs attrs) { return [&, attrs] { sgd_update(p, p, scalar, scalar, {}, attrs, "fc.weight"); }; };
  expect_user_error(with({.momentum = -1}), {"sgd_update 'fc.weight'", "momentum is -1"});
  expect_user_error(with({.momentum = std::nan("")}), {"momentum is nan"});
  expect_user_error(with({.weight_decay = -1}), {"weight decay is -1"});
  expect_user_error(with({.nesterov = true}), {"nesterov", "momentum"});
  expect_user_error([&] { sgd_update(p, scalar, scalar, scalar, {}, {}, "fc.weight"); },
                    {"gradient", "f32[scalar]", "f32[3]"});
  expect_user_error([&] { sgd_update(p, p, p, scalar, {}, {}, "fc.weight"); }, {"learning rate", "f32[3]"});
}

}  // namespace
}  // namespace resnet
