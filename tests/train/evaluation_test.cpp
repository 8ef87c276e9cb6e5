#include "train/evaluation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "ops/evaluate.h"
#include "runtime/on_backend.h"

namespace resnet {
namespace {

using namespace testing;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

Evaluation evaluation_of(int64_t classes, const std::vector<float>& logits, const std::vector<int32_t>& labels) {
  std::vector<std::string> names;
  for (int64_t k = 0; k < classes; ++k) names.push_back("class" + std::to_string(k));
  Evaluator evaluator(names);
  evaluator.add(tensor<float>(DType::f32, {static_cast<int64_t>(labels.size()), classes}, logits), labels);
  return evaluator.result();
}

TEST(Evaluator, CountsAreThoseDoneByHand) {
  Evaluator evaluator({"a", "b", "c"});
  evaluator.add(tensor<float>(DType::f32, {3, 3}, {5, 1, 0, /**/ 0, 2, 1, /**/ 3, 1, 0}),
                std::vector<int32_t>{0, 1, 1});
  evaluator.add(f64({1, 3}, {0, 9, 1}), std::vector<int32_t>{2});
  const Evaluation e = evaluator.result();
  EXPECT_EQ(e.images, 4);
  EXPECT_DOUBLE_EQ(e.top1, 0.5);
  EXPECT_DOUBLE_EQ(e.top5, 1);
  EXPECT_EQ(e.confusion, (std::vector<std::vector<int64_t>>{{1, 0, 0}, {1, 1, 0}, {0, 1, 0}}));
  ASSERT_EQ(e.per_class.size(), 3u);
  EXPECT_EQ(e.per_class[1].name, "b");
  EXPECT_EQ(e.per_class[1].support, 2);
  EXPECT_DOUBLE_EQ(e.per_class[0].precision, 0.5);
  EXPECT_DOUBLE_EQ(e.per_class[0].recall, 1);
  EXPECT_DOUBLE_EQ(e.per_class[0].f1, 2.0 / 3);
  EXPECT_DOUBLE_EQ(e.per_class[2].precision, 0) << "never predicted";
  EXPECT_DOUBLE_EQ(e.per_class[2].f1, 0);
  auto loss = [](std::vector<double> row, size_t label) {
    double sum = 0;
    for (double v : row) sum += std::exp(v);
    return std::log(sum) - row[label];
  };
  EXPECT_NEAR(e.loss, (loss({5, 1, 0}, 0) + loss({0, 2, 1}, 1) + loss({3, 1, 0}, 1) + loss({0, 9, 1}, 2)) / 4, 1e-12);
}

TEST(Evaluator, OfEqualLogitsTheFirstIsThePrediction) {
  const Evaluation e = evaluation_of(3, {1, 1, 1, 1, 1, 1}, {0, 2});
  EXPECT_DOUBLE_EQ(e.top1, 0.5);
  EXPECT_EQ(e.confusion[0][0], 1);
  EXPECT_EQ(e.confusion[2][0], 1);
  EXPECT_NEAR(e.loss, std::log(3.0), 1e-12);
}

TEST(Evaluator, TopFiveCountsFourBetterOnes) {
  const std::vector<float> row{7, 6, 5, 4, 3, 2, 1};
  EXPECT_DOUBLE_EQ(evaluation_of(7, row, {4}).top5, 1);
  EXPECT_DOUBLE_EQ(evaluation_of(7, row, {5}).top5, 0);
  EXPECT_DOUBLE_EQ(evaluation_of(7, {1, 1, 1, 1, 1, 1, 1}, {4}).top5, 1);
  EXPECT_DOUBLE_EQ(evaluation_of(7, {1, 1, 1, 1, 1, 1, 1}, {5}).top5, 0) << "earlier ones win ties";
}

TEST(Evaluator, ANanLogitRanksLastAndIsNeverRight) {
  EXPECT_DOUBLE_EQ(evaluation_of(3, {kNan, 1, 0}, {1}).top1, 1) << "a NaN beats nobody";
  for (const std::vector<float>& row : {std::vector<float>{kNan, 1, 0}, std::vector<float>{kNan, kNan, kNan}}) {
    const Evaluation e = evaluation_of(3, row, {0});
    EXPECT_DOUBLE_EQ(e.top1, 0);
    EXPECT_DOUBLE_EQ(e.top5, 0) << "wrong among fewer than five classes too";
  }
  EXPECT_EQ(evaluation_of(3, {kNan, 1, 0}, {0}).confusion[0][1], 1);
}

TEST(Evaluator, HugeLogitsDoNotOverflowTheLoss) {
  EXPECT_NEAR(evaluation_of(2, {1e30f, -1e30f}, {0}).loss, 0, 1e-12);
  EXPECT_NEAR(evaluation_of(2, {1e30f, -1e30f}, {1}).loss, 2e30, 1e24);
  const std::vector<double> p = softmax(std::vector<double>{1000, 1000, 0});
  EXPECT_DOUBLE_EQ(p[0], 0.5);
  EXPECT_DOUBLE_EQ(p[2], 0);
}

TEST(Evaluator, TheCalibrationErrorIsThatDoneByHand) {
  // Two classes: a logit of log(p / (1 - p)) over 0 has probability p.
  const auto logit = [](double p) { return static_cast<float>(std::log(p / (1 - p))); };
  const std::vector<float> logits{logit(0.61), 0, logit(0.65), 0, logit(0.95), 0, logit(0.97), 0, 0, 0};
  const Evaluation e = evaluation_of(2, logits, {0, 1, 0, 0, 1});
  ASSERT_EQ(e.calibration.size(), 15u);
  EXPECT_EQ(e.calibration[9].images, 2) << "(9/15, 10/15]";
  EXPECT_NEAR(e.calibration[9].confidence, 0.63, 1e-6);
  EXPECT_NEAR(e.calibration[9].accuracy, 0.5, 1e-12);
  EXPECT_EQ(e.calibration[14].images, 2);
  EXPECT_EQ(e.calibration[7].images, 1) << "0.5 is in (7/15, 8/15]";
  EXPECT_NEAR(e.ece, (2 * 0.13 + 2 * 0.04 + 1 * 0.5) / 5, 1e-6);
  int64_t images = 0;
  for (const CalibrationBin& bin : e.calibration) images += bin.images;
  EXPECT_EQ(images, e.images);
}

TEST(Evaluator, ABinHoldsItsUpperEdgeAndCertaintyIsInTheLast) {
  const Evaluation certain = evaluation_of(2, {1000, 0, 1000, 0}, {0, 0});
  EXPECT_EQ(certain.calibration[14].images, 2);
  EXPECT_EQ(certain.ece, 0);
  const Evaluation third = evaluation_of(3, {1, 1, 1}, {0});  // 1/3 = 5/15
  EXPECT_EQ(third.calibration[4].images, 1);
  const Evaluation none = evaluation_of(2, {kNan, 0}, {1});
  EXPECT_EQ(none.calibration[0].images, 1) << "no probabilities, no confidence";
  EXPECT_EQ(none.ece, 1);
}

TEST(Evaluation, ViewsAreAveragedAsProbabilities) {
  const Tensor logits = tensor<float>(DType::f32, {4, 2}, {0, 0, /**/ 2, 0, /**/ -1000, 1000, /**/ -1000, 1000});
  const Tensor mean = mean_log_probabilities(logits, 2);
  ASSERT_EQ(mean.shape(), (Shape{2, 2}));
  const double p = 1 / (1 + std::exp(-2.0));
  EXPECT_NEAR(std::exp(mean.as<double>()[0]), (0.5 + p) / 2, 1e-12);
  EXPECT_NEAR(std::exp(mean.as<double>()[1]), (0.5 + 1 - p) / 2, 1e-12);
  EXPECT_NEAR(mean.as<double>()[2], -2000, 1e-9) << "what is far too small for a double keeps its logarithm";
  EXPECT_NEAR(mean.as<double>()[3], 0, 1e-12);
  const Tensor single = mean_log_probabilities(logits, 1);
  EXPECT_NEAR(single.as<double>()[2], 2 - std::log(std::exp(2.0) + 1), 1e-12);
  const Tensor broken = mean_log_probabilities(tensor<float>(DType::f32, {2, 2}, {0, kNan, 1, 0}), 2);
  EXPECT_TRUE(std::isnan(broken.as<double>()[0])) << "a NaN of one view is not averaged away";
}

TEST(Evaluator, NoImagesGiveZerosNotNans) {
  const Evaluation e = Evaluator({"a", "b"}).result();
  EXPECT_EQ(e.images, 0);
  EXPECT_EQ(e.loss, 0);
  EXPECT_EQ(e.per_class[0].recall, 0);
  EXPECT_EQ(e.ece, 0);
}

}  // namespace
}  // namespace resnet
