// InferenceProgram: a batch in parts gives what it gives as a whole, and the leanest way of loading what the plain one
// does.

#include "train/inference.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "runtime/on_backend.h"
#include "train/model_state.h"

namespace resnet {
namespace {

using namespace testing;

constexpr int64_t kSide = 40;

Tensor random_images(int64_t count) {
  Rng rng(7);
  return random_floats({count, 3, kSide, kSide}, rng);
}

std::map<std::string, Tensor> initial_values(const ModelSpec& model) {
  std::map<std::string, Tensor> values;
  for (const StateSpec& s : model_states(model, {}, DType::f32)) values[s.name] = initial_value(s, 3);
  return values;
}

/// Logits of `images` by micro-batches of `together`, with direct convolutions (whose choice no timing can change).
Tensor logits_of(const std::string& name, const Tensor& images, int64_t together, KeepStates keep = KeepStates::all,
                 const std::set<std::string>& disabled = {}, const char* algorithm = "direct") {
  ScopedEnvironment environment("RESNET_CONV_ALGORITHM", algorithm);
  const ModelSpec model = find_model(name);
  Session session(make_backend("cpu", 2));
  InferenceProgram program(session, model,
                           {.model = {},
                            .images = images.shape(),
                            .micro_batch = together,
                            .passes = {.disabled = disabled, .observer = {}},
                            .keep_model_states = false});
  program.load(initial_values(model), keep);
  const Tensor first = program.run(images);
  EXPECT_EQ(program.run(images), first) << "the same bytes each time";
  return first;
}

double largest(const Tensor& t) {
  double m = 0;
  for (const float v : t.as<float>()) m = std::max<double>(m, std::abs(v));
  return m;
}

void expect_close(const Tensor& actual, const Tensor& expected, const std::string& what) {
  ASSERT_EQ(actual.shape(), expected.shape());
  const double bound = 1e-4 * largest(expected);
  ASSERT_GT(bound, 0);
  for (size_t i = 0; i < actual.as<float>().size(); ++i)
    ASSERT_NEAR(actual.as<float>()[i], expected.as<float>()[i], bound) << what << ", logit " << i;
}

class Inference : public ::testing::Test {
 protected:
  PrivateTuningCache cache_;
};

TEST_F(Inference, MicroBatchesAgreeWithTheWholeBatch) {
  const Tensor images = random_images(7);
  const Tensor whole = logits_of("resnet18", images, 0);
  // To rounding: another batch may get another algorithm, and another order of the last layer's sums.
  for (const int64_t together : {1, 2, 3, 7}) {
    expect_close(logits_of("resnet18", images, together), whole, fmt::format("{} together", together));
  }
}

TEST_F(Inference, TwoProgramsOfOneBuildGiveTheSameBytes) {
  const Tensor images = random_images(4);
  for (const char* algorithm : {"direct", "winograd"}) {
    const Tensor once = logits_of("resnet18", images, 2, KeepStates::all, {}, algorithm);
    EXPECT_EQ(logits_of("resnet18", images, 2, KeepStates::all, {}, algorithm), once) << algorithm;
    EXPECT_EQ(logits_of("resnet18", images, 2, KeepStates::unpacked, {}, algorithm), once) << algorithm;
  }
}

TEST_F(Inference, EveryPassCanBeLeftOut) {
  const Tensor images = random_images(2);
  for (const char* model : {"resnet18", "resnetv2_50"}) {
    const Tensor all = logits_of(model, images, 0);
    for (const std::string& name : pass_names())
      expect_close(logits_of(model, images, 0, KeepStates::all, {name}), all, name);
  }
}

TEST_F(Inference, AMeasuredMicroBatchIsRememberedAndCanBeAnyNumberOfImages) {
  const ModelSpec model = find_model("resnet18");
  int64_t chosen = 0;
  for (int round = 0; round < 2; ++round) {
    Session session(make_backend("cpu", 2));
    int kernels = 0;
    InferenceProgram program(session, model,
                             {.model = {},
                              .images = {3, 3, kSide, kSide},
                              .micro_batch = kMeasuredMicroBatch,
                              .passes = {},
                              .keep_model_states = false},
                             [&](int, int) { ++kernels; });
    if (round == 0) chosen = program.micro_batch();
    EXPECT_EQ(program.micro_batch(), chosen);
    EXPECT_TRUE(chosen == 1 || chosen == 2 || chosen == 3) << chosen;
    const int steps = static_cast<int>(program.program().plan().steps.size());
    EXPECT_EQ(kernels > steps, round == 0) << "the second time nothing is tried";
  }
}

TEST_F(Inference, AStateThatIsReadPackedAloneIsNotKept) {
  ScopedEnvironment environment("RESNET_CONV_ALGORITHM", "winograd");
  const ModelSpec model = find_model("resnet18");
  size_t bytes[2];
  for (const KeepStates keep : {KeepStates::all, KeepStates::unpacked}) {
    Session session(make_backend("cpu", 2));
    InferenceProgram program(session, model,
                             {.model = {}, .images = {1, 3, kSide, kSide}, .passes = {}, .keep_model_states = false});
    program.load(initial_values(model), keep);
    bytes[keep == KeepStates::unpacked] = session.state_bytes();
  }
  EXPECT_LT(bytes[1], bytes[0] / 3) << "most weights of ResNet-18 are 3x3, of stride 1";
}

}  // namespace
}  // namespace resnet
