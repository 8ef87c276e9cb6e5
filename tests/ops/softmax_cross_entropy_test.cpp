#include "ops/softmax_cross_entropy.h"

#include <cmath>

#include "ops/gradient_check.h"

namespace resnet {
namespace {

using namespace testing;

Tensors loss(const Tensor& logits, const Tensor& labels, double smoothing) {
  Graph g;
  const auto r = softmax_cross_entropy(g.input("x", logits.type()), g.input("labels", labels.type()), smoothing);
  g.set_output("loss", r.loss);
  g.set_output("probabilities", r.probabilities);
  g.set_output("correct", r.correct);
  return evaluate(g, {{"x", logits}, {"labels", labels}});
}

TEST(SoftmaxCrossEntropy, HandComputedCase) {
  const double l2 = std::log(2.0);
  const Tensors out = loss(f64({2, 3}, {0, 0, l2, l2, 0, 0}), i32({2}, {2, 1}), 0);
  expect_near(out.at("probabilities"), {0.25, 0.25, 0.5, 0.5, 0.25, 0.25});
  expect_near(out.at("loss"), {(-std::log(0.5) - std::log(0.25)) / 2});
  expect_near(out.at("correct"), {1});
}

TEST(SoftmaxCrossEntropy, SmoothingMixesInTheUniformTarget) {
  const double l2 = std::log(2.0);
  const Tensors out = loss(f64({1, 3}, {0, 0, l2}), i32({1}, {2}), 0.3);
  expect_near(out.at("loss"), {-0.8 * std::log(0.5) - 0.2 * std::log(0.25)});
}

TEST(SoftmaxCrossEntropy, HugeLogitsStayFinite) {
  const Tensors out = loss(f64({1, 2}, {1e4, -1e4}), i32({1}, {1}), 0);
  expect_near(out.at("loss"), {2e4});
  expect_near(out.at("probabilities"), {1, 0});
}

TEST(SoftmaxCrossEntropy, OfEqualMaximaTheFirstIsThePrediction) {
  expect_near(loss(f64({2, 2}, {1, 1, 1, 1}), i32({2}, {0, 1}), 0).at("correct"), {1});
}

TEST(SoftmaxCrossEntropy, ALabelOutsideTheClassesIsOurBug) {
  EXPECT_THROW(loss(f64({1, 2}, {1, 1}), i32({1}, {2}), 0), InternalError);
  EXPECT_THROW(loss(f64({1, 2}, {1, 1}), i32({1}, {-1}), 0), InternalError);
}

TEST(SoftmaxCrossEntropy, GradientAgreesWithCentralDifferences) {
  check_gradients(20, [](Rng& rng) {
    const int64_t rows = draw_between(rng, 1, 4);
    const int64_t classes = draw_between(rng, 2, 5);
    const double smoothing = rng.below(2) == 0 ? 0 : rng.uniform(0, 1);
    Tensor labels(DType::i32, {rows});
    for (int32_t& label : labels.as<int32_t>()) label = static_cast<int32_t>(rng.below(static_cast<uint64_t>(classes)));
    GradientCase c;
    c.inputs = {{"labels", labels}, {"x", random_tensor({rows, classes}, rng)}};
    c.build = [smoothing](Graph&, const Leaves& in) {
      return softmax_cross_entropy(in.at("x"), in.at("labels"), smoothing).loss;
    };
    return c;
  });
}

TEST(SoftmaxCrossEntropy, OnlyTheLossHasAGradient) {
  Graph g;
  const Value x = g.input("x", f64_type({2, 3}));
  const auto r = softmax_cross_entropy(x, g.input("labels", {DType::i32, {2}}));
  const std::vector<Value> wrt{x};
  EXPECT_THROW(gradients(r.probabilities, wrt), InternalError);
  EXPECT_THROW(gradients(r.correct, wrt), InternalError);
}

TEST(SoftmaxCrossEntropy, ShapeErrorsNameBothShapes) {
  Graph g;
  const Value x = g.input("x", f32_type({4, 10}));
  expect_user_error(
      [&] {
        softmax_cross_entropy(x, g.input("l", {DType::i32, {5}}), 0, "loss");
      },
      {"softmax_cross_entropy 'loss'", "labels", "i32[5]", "i32[4]"});
  expect_user_error([&] { softmax_cross_entropy(x, g.input("f", f32_type({4})), 0); }, {"labels", "f32[4]", "i32[4]"});
  expect_user_error([&] { softmax_cross_entropy(x, g.input("k", {DType::i32, {4}}), 1.5); }, {"smoothing", "1.5"});
}

}  // namespace
}  // namespace resnet
