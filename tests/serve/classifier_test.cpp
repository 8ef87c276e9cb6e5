#include "serve/classifier.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <thread>

#include "runtime/on_backend.h"
#include "serve/small_model.h"

namespace resnet {
namespace {

using namespace testing;

/// Images of several sizes, each the owner of its pixels.
class Images {
 public:
  explicit Images(size_t count, int64_t channels = 3) {
    for (size_t i = 0; i < count; ++i) {
      const int64_t height = 9 + static_cast<int64_t>(i * 7 % 40), width = 50 - static_cast<int64_t>(i * 5 % 30);
      pixels_.push_back(random_pixels(i, height, width, channels));
      views_.push_back({pixels_.back(), channels, height, width});
    }
  }
  std::span<const ImageView> views() const { return views_; }

 private:
  std::vector<std::vector<uint8_t>> pixels_;
  std::vector<ImageView> views_;
};

void expect_near(const Tensor& actual, const Tensor& expected, double relative) {
  ASSERT_EQ(actual.shape(), expected.shape());
  double largest = 0;
  for (const float v : expected.as<float>()) largest = std::max<double>(largest, std::abs(v));
  ASSERT_GT(largest, 0.1);
  for (size_t i = 0; i < actual.as<float>().size(); ++i)
    EXPECT_NEAR(actual.as<float>()[i], expected.as<float>()[i], relative * largest) << "logit " << i;
}

class ClassifierTest : public ::testing::Test {
 protected:
  ClassifierTest() {
    path_ = folder_ / "model.safetensors";
    write_safetensors(path_, small_model(1));
  }
  PrivateTuningCache cache_;
  TemporaryDirectory folder_;
  std::string path_;
};

TEST_F(ClassifierTest, LogitsAreThoseOfTheUnfoldedNetworkInPlainLoops) {
  const Images images(3);
  Classifier classifier(path_, {.threads = 2});
  const Tensor logits = classifier.logits(images.views());

  const LoadedModel model = load_model(path_);
  const Preprocessing& preprocessing = model.description.preprocessing;
  Session session(make_backend("reference", 1));
  InferenceProgram program(session, find_model(model.description.architecture),
                           {.model = model.description.options,
                            .images = {3, 3, 20, 20},
                            .passes = {.disabled = {"fold_batch_norm", "fuse_batch_norm_tail"}, .observer = {}}});
  write_states(session, model.values);
  Tensor inputs(DType::f32, Shape{3, 3, 20, 20});
  PreprocessScratch scratch;
  for (size_t i = 0; i < 3; ++i)
    preprocess(images.views()[i], preprocessing, scratch, inputs.as<float>().subspan(i * 1200, 1200));
  expect_near(logits, program.run(inputs), 1e-5);
  EXPECT_EQ(classifier.logits(inputs), logits) << "preprocessed inputs give the same bits";
  EXPECT_EQ(classifier.description().class_names[4], "elk");
}

TEST_F(ClassifierTest, AnyNumberOfImagesIsComputedByAFewProgramsThatAgree) {
  const Images images(37);
  Classifier classifier(path_, {.threads = 1, .max_batch = 20});
  EXPECT_EQ(classifier.compiled_batches(), (std::vector<int64_t>{1}));
  const Tensor all = classifier.logits(images.views());
  EXPECT_EQ(classifier.compiled_batches(), (std::vector<int64_t>{1, 20})) << "20, then 17 in a second run of 20";
  for (const size_t n : {1u, 2u, 3u, 4u, 7u, 13u, 20u, 36u}) {
    const Tensor some = classifier.logits(images.views().first(n));
    Tensor expected(DType::f32, Shape{static_cast<int64_t>(n), 5});
    std::memcpy(expected.data(), all.data(), expected.size_bytes());
    expect_near(some, expected, 1e-5);
  }
  EXPECT_EQ(classifier.compiled_batches(), (std::vector<int64_t>{1, 4, 16, 20}));
  const Tensor none = classifier.logits(std::span<const ImageView>());
  EXPECT_EQ(none.shape(), (Shape{0, 5}));
}

TEST_F(ClassifierTest, TheSessionHoldsTheFoldedWeightsOnly) {
  // One copy of the weights, whatever the number of programs: 0.27 M parameters, padded to blocks of channels.
  const LoadedModel model = load_model(path_);
  Session session(make_backend("cpu", 1, AlgorithmChoice::usual));
  const ModelSpec spec = find_model(model.description.architecture);
  InferenceProgram one(
      session, spec,
      {.model = model.description.options, .images = {1, 3, 20, 20}, .passes = {}, .keep_model_states = false});
  one.load(model.values);
  const size_t bytes = session.state_bytes();
  EXPECT_FALSE(session.has_state("conv1.weight"));
  InferenceProgram four(
      session, spec,
      {.model = model.description.options, .images = {4, 3, 20, 20}, .passes = {}, .keep_model_states = false});
  EXPECT_EQ(session.state_bytes(), bytes);
  Tensor inputs(DType::f32, Shape{4, 3, 20, 20});
  Rng rng(3);
  for (float& v : inputs.as<float>()) v = static_cast<float>(rng.uniform(-1, 1));
  Tensor first(DType::f32, Shape{1, 3, 20, 20});
  std::memcpy(first.data(), inputs.data(), first.size_bytes());
  const Tensor of_four = four.run(inputs);
  Tensor row(DType::f32, Shape{1, 5});
  std::memcpy(row.data(), of_four.data(), row.size_bytes());
  expect_near(row, one.run(first), 1e-5);
}

TEST_F(ClassifierTest, AModelThatIsNotInEightBitsIsNotTakenForOne) {
  EXPECT_THROW(Classifier(path_, {.precision = Precision::int8}), UserError);
  EXPECT_THROW(Classifier(load_model(path_), {.precision = Precision::int8}), UserError);
  EXPECT_NO_THROW(Classifier(path_, {.precision = Precision::f32}));
}

TEST_F(ClassifierTest, NothingIsMeasuredUnlessAskedFor) {
  const Images images(2);
  const std::filesystem::path cache = std::filesystem::path(getenv("XDG_CACHE_HOME")) / "resnet";
  Classifier usual(path_, {.threads = 1});
  const Tensor before = usual.logits(images.views());
  EXPECT_FALSE(std::filesystem::exists(cache));
  Classifier measured(path_, {.threads = 1, .measure = true});
  measured.logits(images.views());
  EXPECT_TRUE(std::filesystem::exists(cache));
  Classifier later(path_, {.threads = 1});
  EXPECT_EQ(later.logits(images.views()), before) << "the usual way depends on no cache";
}

TEST_F(ClassifierTest, NothingIsMeasuredForAFewImagesOfASmallNet) {
  const std::filesystem::path cache = std::filesystem::path(getenv("XDG_CACHE_HOME")) / "resnet";
  int reports = 0;
  const PlanProgress progress = [&](const std::string&, int, int) { ++reports; };
  const Images images(2);
  const Tensor usual = Classifier(path_, {.threads = 1, .max_batch = 2}).logits(images.views());
  Classifier few(path_, {.threads = 1, .max_batch = 2, .measure = true, .expected_images = 300, .progress = progress});
  EXPECT_EQ(few.logits(images.views()), usual);
  EXPECT_FALSE(std::filesystem::exists(cache));
  reports = 0;
  Classifier(path_, {.threads = 1, .max_batch = 2, .measure = true, .expected_images = 1 << 30, .progress = progress});
  EXPECT_TRUE(std::filesystem::exists(cache));
  EXPECT_GT(reports, 5) << "measuring is told";
}

TEST_F(ClassifierTest, TwoThreadsUseTwoClassifiersAtOnce) {
  const Images images(9);
  const std::string other = folder_ / "other.safetensors";
  write_safetensors(other, small_model(2));
  const Tensor expected[] = {Classifier(path_, {.threads = 2}).logits(images.views()),
                             Classifier(other, {.threads = 2}).logits(images.views())};
  EXPECT_NE(expected[0], expected[1]);
  Tensor found[2];
  {
    std::vector<std::jthread> threads;
    for (const int i : {0, 1}) {
      threads.emplace_back([&, i] {
        for (int round = 0; round < 5; ++round) {
          Classifier classifier(i == 0 ? path_ : other, {.threads = 2});
          found[i] = classifier.logits(images.views());
          if (found[i] != expected[i]) return;
        }
      });
    }
  }
  EXPECT_EQ(found[0], expected[0]);
  EXPECT_EQ(found[1], expected[1]);
}

TEST_F(ClassifierTest, AModelInDoubleIsForTheReferenceBackend) {
  const std::string path = folder_ / "double.safetensors";
  write_safetensors(path, small_model(1, 20, DType::f64));
  const Images images(2);
  EXPECT_THROW(Classifier(path, {.threads = 1}), UserError);
  Classifier reference(path, {.threads = 1, .backend = "reference"});
  EXPECT_EQ(reference.input_dtype(), DType::f64);
  // The same seed draws the same weights, to the rounding of f32.
  expect_near(reference.logits(images.views()), Classifier(path_, {.threads = 1}).logits(images.views()), 1e-5);
}

TEST_F(ClassifierTest, ALargeModelsNextStartTakesItsWeightsFromTheCache) {
  ModelFile file = small_model(1);
  file.metadata["architecture"] = "resnet18";
  file.tensors.clear();
  ModelOptions options;
  options.num_classes = 5;
  for (const StateSpec& state : model_states(find_model("resnet18"), options, DType::f32))
    file.tensors[state.name] = initial_value(state, 1);
  const std::string path = folder_ / "large.safetensors";
  write_safetensors(path, file);
  const Images images(2);
  for (const bool measure : {false, true}) {
    const ClassifierOptions how{.threads = 1, .max_batch = 4, .measure = measure};
    Tensor first;
    {
      Classifier classifier(path, how);
      first = classifier.logits(images.views());
      EXPECT_EQ(classifier.weights_origin(), "file (not kept yet)") << "the answer does not wait for it";
      if (measure) {
        EXPECT_EQ(classifier.logits(images.views()), first);
        EXPECT_EQ(classifier.weights_origin(), "file (kept for the next start)") << "the second answer does";
      }
    }
    Classifier classifier(path, how);
    EXPECT_EQ(classifier.weights_origin(), "cache");
    EXPECT_EQ(classifier.logits(images.views()), first);
    // Programs of other sizes, compiled now or only when they are wanted, read the same weights.
    const Images more(4);
    Classifier without(path, how);
    expect_near(classifier.logits(more.views()), without.logits(more.views()), 1e-6);
  }
}

void expect_usage(const std::function<void()>& action, const std::string& part) {
  try {
    action();
    ADD_FAILURE() << "nothing was thrown; expected " << part;
  } catch (const UserError& error) {
    EXPECT_EQ(error.code(), ExitCode::usage);
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST_F(ClassifierTest, WrongImagesAndOptionsAreNamed) {
  Classifier classifier(path_, {.threads = 1});
  const Images grey(1, 1), good(1);
  expect_usage([&] { classifier.logits(grey.views()); }, "image 0: 1 channels; the model wants 3");
  const std::vector<ImageView> wrong = {good.views()[0], {{}, 3, 0, 5}};
  expect_usage([&] { classifier.logits(wrong); }, "image 1: 5x0 pixels");
  const ImageView broken{good.views()[0].pixels.first(100), 3, 40, 40};
  expect_usage([&] { classifier.logits(std::span(&broken, 1)); }, "100 bytes; expected 4800");
  expect_usage([&] { classifier.logits(Tensor(DType::f32, Shape{1, 3, 20, 21})); }, "f32[1x3x20x21]");
  expect_usage([&] { classifier.logits(Tensor(DType::f64, Shape{1, 3, 20, 20})); }, "f64[1x3x20x20]");
  expect_usage([&] { Classifier(path_, {.threads = -1}); }, "threads: -1");
  expect_usage([&] { Classifier(path_, {.max_batch = 0}); }, "max_batch: 0");
  expect_usage([&] { Classifier(path_, {.backend = "gpu"}); }, "gpu");
  EXPECT_THROW(Classifier(folder_ / "none.safetensors"), ResourceError);
}

TEST(TopK, IsOrderedByLogitThenByIndex) {
  const std::vector<std::string> names = {"a", "b", "c", "d"};
  const std::vector<float> logits = {1, 3, 3, -2};
  const std::vector<Prediction> best = Classifier::top_k(logits, 3, names);
  ASSERT_EQ(best.size(), 3u);
  EXPECT_EQ(best[0].name, "b");
  EXPECT_EQ(best[1].name, "c");
  EXPECT_EQ(best[2].index, 0);
  const double sum = std::exp(1) + 2 * std::exp(3) + std::exp(-2);
  EXPECT_NEAR(best[0].probability, std::exp(3) / sum, 1e-15);
  EXPECT_NEAR(best[2].probability, std::exp(1) / sum, 1e-15);
  EXPECT_EQ(Classifier::top_k(logits, 100, names).size(), 4u);
  expect_usage([&] { Classifier::top_k(logits, 0, names); }, "top-k: 0");
}

double cpu_seconds_of_this_process() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

TEST_F(ClassifierTest, WaitingForWorkBurnsNoCpu) {
  const char* policy = std::getenv("OMP_WAIT_POLICY");
  if (policy && (policy[0] == 'a' || policy[0] == 'A')) GTEST_SKIP() << "OMP_WAIT_POLICY=active asks for burning";
  Classifier classifier(path_, {.threads = 2});
  const Images images(2);
  classifier.logits(images.views());
  const double before = cpu_seconds_of_this_process();
  std::this_thread::sleep_for(std::chrono::seconds(1));
  // Two threads that spin would have burnt a second each, or what other programs leave them; the runtime's last wait
  // ends after some milliseconds.
  EXPECT_LT(cpu_seconds_of_this_process() - before, 0.25);
}

TEST(TopK, ANanIsTheLeastOfAll) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<std::string> names = {"a", "b", "c"};
  const std::vector<Prediction> best = Classifier::top_k(std::vector<float>{nan, -1, 0}, 3, names);
  EXPECT_EQ(best[0].name, "c");
  EXPECT_EQ(best[2].name, "a");
  EXPECT_EQ(best[2].probability, 0);
  EXPECT_NEAR(best[0].probability + best[1].probability, 1, 1e-15);
  for (const Prediction& p : Classifier::top_k(std::vector<float>{nan, nan, nan}, 3, names))
    EXPECT_EQ(p.probability, 0);
}

}  // namespace
}  // namespace resnet
