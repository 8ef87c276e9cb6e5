#include "backends/cpu/conv2d_choice.h"

#include <gtest/gtest.h>

#include <chrono>
#include <limits>
#include <thread>

#include "runtime/on_backend.h"

namespace resnet::cpu {
namespace {

using namespace resnet::testing;

class FakeKernel : public Kernel {
 public:
  FakeKernel(std::string name, int milliseconds, size_t scratch = 0)
      : name_(std::move(name)), milliseconds_(milliseconds), scratch_(scratch) {}
  size_t scratch_bytes() const override { return scratch_; }
  std::string algorithm() const override { return name_; }
  void run(const KernelCall&) override { std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds_)); }

 private:
  std::string name_;
  int milliseconds_;
  size_t scratch_;
};

constexpr int64_t kAny = std::numeric_limits<int64_t>::max();

/// Takes `milliseconds` and can do at most `images`.
ConvCandidate fake(const std::string& name, int milliseconds, int64_t images = kAny) {
  return {name, false, [=](const ConvProblem& p) -> std::unique_ptr<Kernel> {
            if (p.x[0] > images) return nullptr;
            return std::make_unique<FakeKernel>(name, milliseconds);
          }};
}

/// A hundred images, more than are measured on.
ConvProblem problem() {
  ConvProblem p;
  p.x = p.y = {100, 4, 3, 3};
  p.w = {4, 4, 1, 1};
  p.x_info = p.y_info = {f32_type(p.x), {}};
  p.w_info = {f32_type(p.w), {}};
  return p;
}

class ConvChoice : public ::testing::Test {
 protected:
  std::string choose(const std::vector<ConvCandidate>& candidates) {
    return choose_convolution(problem(), "key", candidates, tuning_, {})->algorithm();
  }
  PrivateTuningCache cache_;
  TuningCache tuning_{"machine"};
};

TEST_F(ConvChoice, TheFastestIsTakenAndRemembered) {
  EXPECT_EQ(choose({fake("slow", 8), fake("fast", 0), fake("middle", 4)}), "fast");
  EXPECT_EQ(tuning_.find("key"), "fast");
  EXPECT_EQ(choose({fake("fast", 8), fake("slow", 0)}), "fast") << "what is known is not measured again";
}

TEST(ConvCost, AmongTheNearlyFastestAMegabyteOfWeightsCounts) {
  constexpr size_t kMB = 1'000'000;
  const auto first = [](std::vector<double> milliseconds, std::vector<size_t> bytes, int64_t images = 4,
                        ConvAim aim = {.threads = 2}) {
    for (double& ms : milliseconds) ms *= 1e-3;
    return by_cost(milliseconds, bytes, images, aim).front();
  };
  EXPECT_EQ(first({10.0, 10.5}, {19 * kMB, 8 * kMB}), 1u) << "0.5 ms more, 11 MB less";
  EXPECT_EQ(first({10.0, 10.5}, {19 * kMB, 10 * kMB}), 0u) << "9 MB less are not enough";
  EXPECT_EQ(first({10.0, 10.5}, {19 * kMB, 10 * kMB}, 4, {.threads = 1}), 1u)
      << "one thread's time is worth half as much";
  EXPECT_EQ(first({10.0, 10.5}, {19 * kMB, 4 * kMB}, 4, {.threads = 8}), 0u) << "eight threads' four times as much";
  EXPECT_EQ(first({0.20, 0.201}, {2 * kMB, kMB / 2}), 0u) << "two megabytes are free";
  EXPECT_EQ(first({10.0, 13.1}, {900 * kMB, 3 * kMB}), 0u) << "too slow, whatever it saves";
  EXPECT_EQ(first({10.0, 12.9}, {900 * kMB, 3 * kMB}), 1u);
  EXPECT_EQ(first({10.0, 10.9}, {900 * kMB, 3 * kMB}, 1), 0u) << "one image is wanted soon";
  EXPECT_EQ(first({10.0, 10.7}, {900 * kMB, 3 * kMB}, 1), 1u);
  const ConvAim small{.threads = 2, .save_memory = true};
  EXPECT_EQ(first({10.0, 10.5}, {19 * kMB, 15 * kMB}, 4, small), 1u) << "to save memory, 4 MB less are enough";
  EXPECT_EQ(first({10.0, 14.9}, {900 * kMB, 3 * kMB}, 4, small), 1u);
  EXPECT_EQ(first({10.0, 15.1}, {900 * kMB, 3 * kMB}, 4, small), 0u);
  EXPECT_EQ(first({10.5, 10.0}, {8 * kMB, 19 * kMB}), 0u) << "in whatever order they come";
  EXPECT_EQ(first({1.0, 1.0}, {kMB, kMB}), 0u) << "the first of two alike";
  const std::vector<double> seconds = {3e-3, 1e-3, 2e-3, 1.05e-3};
  EXPECT_EQ(by_cost(seconds, std::vector<size_t>{0, 6 * kMB, 0, 0}, 4, {.threads = 2}),
            (std::vector<size_t>{3, 1, 2, 0}))
      << "by speed";
  EXPECT_TRUE(by_cost({}, {}, 4, {.threads = 2}).empty());
}

TEST_F(ConvChoice, WithoutMeasuringItIsTheFirstWhateverIsKnownAndNothingIsRemembered) {
  const std::vector<ConvCandidate> candidates = {fake("small", 0, 64), fake("first", 8), fake("fast", 0)};
  const auto choose_at_once = [&] {
    return choose_convolution(problem(), "key", candidates, tuning_, {.measure = false})->algorithm();
  };
  EXPECT_EQ(choose_at_once(), "first") << "the first that can be made";
  EXPECT_EQ(tuning_.find("key"), std::nullopt);
  EXPECT_EQ(choose(candidates), "fast");
  EXPECT_EQ(choose_at_once(), "first");
}

TEST_F(ConvChoice, AWinnerThatCannotBeBuiltInFullGivesWayToTheNext) {
  EXPECT_EQ(choose({fake("slow", 8), fake("fast", 0, 64), fake("middle", 4)}), "middle");
  EXPECT_EQ(tuning_.find("key"), "middle");
}

TEST_F(ConvChoice, AGreedyOneIsNotTakenThoughItIsTheFastest) {
  const auto greedy = [](int64_t scratch) {
    return ConvCandidate{"greedy", false, [=](const ConvProblem&) {
                           return std::make_unique<FakeKernel>("greedy", 0, static_cast<size_t>(scratch));
                         }};
  };
  constexpr int64_t kPiB = int64_t{1} << 50;  // not to be had: it must not be asked for
  EXPECT_EQ(choose({greedy(kPiB), fake("modest", 4)}), "modest");
  tuning_.remember("key", "");
  EXPECT_EQ(choose({greedy(int64_t{64} << 20), fake("modest", 40)}), "greedy") << "not so greedy";
}

TEST_F(ConvChoice, WhatIsKnownButCannotBeBuiltIsReplaced) {
  tuning_.remember("key", "small");
  EXPECT_EQ(choose({fake("small", 0, 64), fake("any", 1)}), "any");
  EXPECT_EQ(tuning_.find("key"), "any");
  tuning_.adopt({{"key", "unheard of"}});
  EXPECT_EQ(choose({fake("any", 1)}), "any");
  EXPECT_EQ(tuning_.find("key"), "any");
}

TEST_F(ConvChoice, WhenNoneCanBeBuiltTheReasonIsToldAndNothingRemembered) {
  EXPECT_THROW(choose({}), InternalError);
  EXPECT_THROW(choose({fake("a", 0, 64), fake("b", 0, 10)}), InternalError);
  const ConvCandidate hungry{"hungry", false, [](const ConvProblem& p) -> std::unique_ptr<Kernel> {
                               if (p.x[0] > 64) throw ResourceError(ExitCode::limit, "memory: {} is short", "it");
                               return std::make_unique<FakeKernel>("hungry", 0);
                             }};
  try {
    choose({fake("a", 1, 64), hungry});
    ADD_FAILURE() << "nothing was thrown";
  } catch (const ResourceError& error) {
    EXPECT_EQ(error.code(), ExitCode::limit);
    EXPECT_STREQ(error.what(), "memory: it is short");
  }
  EXPECT_EQ(tuning_.find("key"), std::nullopt);
  EXPECT_EQ(choose({hungry, fake("b", 1)}), "b") << "another is there";
}

}  // namespace
}  // namespace resnet::cpu
