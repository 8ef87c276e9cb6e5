// What reports say of numbers: the sentence must follow from them, at ties, at noise and at NaN.

#include "lab/judgement.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace resnet {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST(Judgement, ANaNIsNeverTheSmallerOne) {
  EXPECT_EQ(larger(1, 2), 2);
  EXPECT_EQ(larger(2, 1), 2);
  EXPECT_TRUE(std::isnan(larger(kNan, 1)));
  EXPECT_TRUE(std::isnan(larger(1, kNan)));
}

TEST(Judgement, ADifferenceIsPairedAndOfTheLastSteps) {
  // The batches' own ups and downs cancel; the first step is outside the window.
  const Difference d = paired_difference({100, 5, 1, 9, 3}, {0, 4.9, 0.7, 8.9, 2.9}, 4);
  EXPECT_NEAR(d.mean, -0.15, 1e-12);
  EXPECT_NEAR(d.error, 0.05, 1e-12);  // deviations .05 .15 .05 .05: sqrt(.03 / 3 / 4)
  EXPECT_EQ(side_of(d), Side::lower);
  EXPECT_EQ(side_of(paired_difference({1}, {2}, 10)), Side::higher) << "one step has no spread";
  EXPECT_EQ(side_of(paired_difference({1, 1}, {1, 1}, 2)), Side::level);
  EXPECT_EQ(side_of(paired_difference({1, 2, 1, 2}, {2, 1, 2.1, 1}, 4)), Side::level);
  EXPECT_EQ(side_of(paired_difference({1, kNan}, {1, 1}, 2)), Side::unknown);
  EXPECT_TRUE(holds(words(Side::unknown), "not comparable"));
}

TEST(Judgement, GradientsVanishOnlyByDecades) {
  EXPECT_EQ(judge_gradients(1e-20, 0.3), "the plain net's gradient vanishes");
  EXPECT_TRUE(holds(judge_gradients(0, 0.3), "vanishes")) << "underflow";
  EXPECT_TRUE(holds(judge_gradients(0.50, 0.51), "no clear difference"));
  EXPECT_TRUE(holds(judge_gradients(3, 5), "no clear difference")) << "neither vanishes";
  EXPECT_TRUE(holds(judge_gradients(0.3, 5), "no clear difference")) << "half a decade";
  EXPECT_TRUE(holds(judge_gradients(1.2, 1.1), "no clear difference"));
  EXPECT_TRUE(holds(judge_gradients(4000, 2), "grows towards the input"));
  EXPECT_FALSE(holds(judge_gradients(4000, 2), "too"));
  EXPECT_TRUE(holds(judge_gradients(4000, 20), "too"));
  EXPECT_TRUE(holds(judge_gradients(1e-5, 20), "vanishes; the residual net's grows towards the input"));
  EXPECT_FALSE(holds(judge_gradients(1e-5, 20), "too"));
  EXPECT_TRUE(holds(judge_gradients(kNan, 1), "not comparable"));
}

TEST(Judgement, ARunTrainsWhenItsLossIsBelowGuessing) {
  const double guessing = std::log(10.0);
  EXPECT_TRUE(holds(judge_training({3, 2, 1}, 1, guessing, 3), "it trains"));
  EXPECT_TRUE(holds(judge_training({40, 9, 2.3}, 2.2, guessing, 3), "not clearly below guessing"));
  EXPECT_TRUE(holds(judge_training({2, kNan, kNan, kNan}, kNan, guessing, 3), "from step 2 on"));
  EXPECT_TRUE(holds(judge_training({kNan, kNan, kNan}, kNan, guessing, 3), "from step 1 on"));
  const std::string recovered = judge_training({2, kNan, 1, 1}, 1, guessing, 3);
  EXPECT_TRUE(holds(recovered, "it trains")) << recovered;
  EXPECT_TRUE(holds(recovered, "1 steps had no finite loss")) << recovered;
}

}  // namespace
}  // namespace resnet
