// InferenceProgram: a batch in parts gives what it gives as a whole, and the leanest way of loading what the plain one
// does.

#include "train/inference.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <utility>
#include <vector>

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
                 const std::set<std::string>& disabled = {}, const char* algorithm = "direct", int streams = 1) {
  ScopedEnvironment environment("RESNET_CONV_ALGORITHM", algorithm);
  const ModelSpec model = find_model(name);
  Session session(make_backend("cpu", 2));
  InferenceProgram program(session, model,
                           {.model = {},
                            .images = images.shape(),
                            .micro_batch = together,
                            .streams = streams,
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

/// Those that need two or three threads.
class Streams : public Inference {
 protected:
  void SetUp() override {
    if (omp_get_thread_limit() < 3) GTEST_SKIP() << "OMP_THREAD_LIMIT leaves no three threads";
  }
};

TEST_F(Streams, AgreeWithTheTeam) {
  const Tensor images = random_images(7);
  for (const char* algorithm : {"direct", "winograd"}) {
    const Tensor whole = logits_of("resnet18", images, 0, KeepStates::all, {}, algorithm);
    for (const int64_t together : {2, 3, 7})
      expect_close(logits_of("resnet18", images, together, KeepStates::unpacked, {}, algorithm, 2), whole,
                   fmt::format("{}, {} together", algorithm, together));
  }
}

TEST_F(Streams, ShareOutFewerImagesThanABatch) {
  ScopedEnvironment environment("RESNET_CONV_ALGORITHM", "direct");
  const ModelSpec model = find_model("resnet20_cifar_a");
  Session session(make_backend("cpu", 3));
  InferenceProgram program(
      session, model,
      {.model = {}, .images = {8, 3, 8, 8}, .micro_batch = 7, .streams = 3, .passes = {}, .keep_model_states = false});
  program.load(initial_values(model));
  EXPECT_EQ(program.micro_batch(), (MicroBatch{.images = 7, .streams = 3}));
  EXPECT_EQ(program.micro_batch().program_images(), 3);
  Rng rng(7);
  const Tensor images = random_floats({8, 3, 8, 8}, rng);
  const Tensor all = program.run(images);
  const auto rows = [](const Tensor& t, int64_t n) {
    Tensor first(DType::f32, Shape{n, t.elements() / t.shape()[0]});
    std::memcpy(first.data(), t.data(), first.size_bytes());
    return first;
  };
  for (int64_t n = 1; n <= 8; ++n) {
    Tensor some(DType::f32, Shape{n, 3, 8, 8});
    std::memcpy(some.data(), images.data(), some.size_bytes());
    EXPECT_EQ(program.run(some), rows(all, n)) << n;
  }
}

TEST_F(Inference, WhatWasComputedBeforeDoesNotShowInAPartThatIsNotFull) {
  const ScopedEnvironment half("RESNET_F16", "emulate"), environment("RESNET_CONV_ALGORITHM", "winograd");
  const ModelSpec model = find_model("resnet20_cifar_a");
  Session session(make_backend("cpu", 2, AlgorithmChoice::measured, Precision::f16));
  InferenceProgram program(session, model,
                           {.model = {}, .images = {4, 3, 8, 8}, .passes = {}, .keep_model_states = false});
  program.load(initial_values(model));
  Rng rng(7);
  Tensor images = random_floats({4, 3, 8, 8}, rng);
  Tensor one(DType::f32, Shape{1, 3, 8, 8});
  std::memcpy(one.data(), images.data(), one.size_bytes());
  const Tensor expected = program.run(one);
  for (float& value : images.as<float>()) value *= 1000;
  Tensor three(DType::f32, Shape{3, 3, 8, 8});
  std::memcpy(three.data(), images.data(), three.size_bytes());
  program.run(three);
  EXPECT_EQ(program.run(one), expected) << "scales are those of several images";
}

TEST_F(Streams, MoreThanImagesOrOtherThanTheBackendsAreOurBug) {
  const ModelSpec model = find_model("resnet20_cifar_a");
  Session session(make_backend("cpu", 3));
  for (const auto& [images, streams] : {std::pair{2, 3}, {8, 2}}) {
    const InferenceOptions options{.model = {}, .images = {images, 3, 8, 8}, .streams = streams, .passes = {}};
    EXPECT_THROW(InferenceProgram(session, model, options), InternalError) << images << ' ' << streams;
  }
}

/// oneDNN's kernels leave parts of a result unwritten where OpenMP gives fewer threads than they were made for.
TEST_F(Inference, ACallersParallelRegionAndDynamicTeamsChangeNothing) {
  const Tensor images = random_images(2);
  const Tensor expected = logits_of("resnet18", images, 0);
  Tensor inside;
#pragma omp parallel num_threads(2)
#pragma omp master
  inside = logits_of("resnet18", images, 0);
  EXPECT_EQ(inside, expected);
  omp_set_dynamic(1);
  EXPECT_EQ(logits_of("resnet18", images, 0), expected);
  omp_set_dynamic(0);
}

TEST_F(Streams, InACallersParallelRegionAndADynamicTeam) {
  const Tensor images = random_images(2);
  const auto logits = [&] { return logits_of("resnet18", images, 0, KeepStates::all, {}, "direct", 2); };
  const Tensor expected = logits();
  Tensor inside;
#pragma omp parallel num_threads(2)
#pragma omp master
  inside = logits();
  EXPECT_EQ(inside, expected);
  omp_set_dynamic(1);
  EXPECT_EQ(logits(), expected);
  omp_set_dynamic(0);
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

TEST(MicroBatch, IsReadAsItIsWritten) {
  for (const MicroBatch together : {MicroBatch{16, 1}, {16, 2}, {3, 3}})
    EXPECT_EQ(parse_micro_batch(str(together)), together) << str(together);
  for (const char* text : {"", "0", "-1", "x", "3 in", "3 in 0 streams", "1 in 2 streams", "3 in 2 streams.",
                           "3 in 2stream", "3 in 2", "3 2 streams", "99999999999999999999", " 3"})
    EXPECT_EQ(parse_micro_batch(text), std::nullopt) << text;
}

TEST(MicroBatch, MemoryCountsAmongThoseAboutAsFastAsTheFastest) {
  using Trials = std::vector<MicroBatchTrial>;
  EXPECT_EQ(best_micro_batch(Trials{{1, 1.0, 8e6}}), 1);
  EXPECT_EQ(best_micro_batch(Trials{{1, 1.1, 2e8}, {2, 1.0, 3e8}}), 1) << "a third less memory, 10 % more time";
  EXPECT_EQ(best_micro_batch(Trials{{1, 1.12, 5e8}, {2, 1.0, 6e8}}), 2) << "a sixth less is not worth 12 %";
  EXPECT_EQ(best_micro_batch(Trials{{1, 1.1, 1e6}, {2, 1.0, 1.5e8}}), 2) << "both are small";
  EXPECT_EQ(best_micro_batch(Trials{{1, 1.16, 1e3}, {2, 1.0, 3e9}}), 2) << "too slow, whatever it saves";
  EXPECT_EQ(best_micro_batch(Trials{{1, 1.14, 1e3}, {2, 1.0, 3e9}}), 1);
  EXPECT_EQ(best_micro_batch(Trials{{1, 2.0, 2e8}, {2, 1.5, 3e8}, {4, 1.0, 4e8}, {8, 0.95, 8e8}}), 4);
  EXPECT_EQ(best_micro_batch(Trials{{1, 1.0, 1e6}, {2, 1.0, 1e6}}), 1) << "the smaller of two alike";
  EXPECT_EQ(best_micro_batch(Trials{{1, 1.005, 1e6}, {2, 1.0, 1e6}}), 1) << "alike: half a percent is chance";
  EXPECT_EQ(best_micro_batch(Trials{{1, 1.04, 1e6}, {2, 1.0, 1e6}}), 2);
}

TEST(MicroBatch, MemoryIsSpentOnAGainThatShowsTwice) {
  using Trials = std::vector<MicroBatchTrial>;
  using Pairs = std::vector<std::pair<int64_t, int64_t>>;
  Pairs compared;
  const auto confirmed = [&](const Trials& trials, const std::map<int64_t, double>& again) {
    compared.clear();
    return confirmed_micro_batch(trials, [&](int64_t leaner, int64_t chosen) {
      compared.emplace_back(leaner, chosen);
      return again.at(chosen);
    });
  };
  const Trials disturbed = {{4, 1.0, 1.3e8}, {8, 0.97, 1.59e8}, {16, 0.8, 2.1e8}, {32, 0.8, 3.3e8}};
  ASSERT_EQ(best_micro_batch(disturbed), 16);
  EXPECT_EQ(confirmed(disturbed, {{16, 0.8}}), 16) << "a fifth faster, and so again";
  EXPECT_EQ(compared, (Pairs{{8, 16}}));
  EXPECT_EQ(confirmed(disturbed, {{16, 0.98}}), 8) << "it was chance";
  EXPECT_EQ(compared, (Pairs{{8, 16}})) << "8 is small, nothing is left to save";
  EXPECT_EQ(confirmed(disturbed, {{16, std::numeric_limits<double>::infinity()}}), 8) << "no room to look again";
  const Trials large = {{1, 1.0, 1.3e8}, {2, 0.7, 2.6e8}, {4, 0.5, 5.2e8}};
  ASSERT_EQ(best_micro_batch(large), 4);
  EXPECT_EQ(confirmed(large, {{4, 0.9}, {2, 0.9}}), 1) << "what takes the place of the first choice is looked at, too";
  EXPECT_EQ(compared, (Pairs{{2, 4}, {1, 2}}));
  EXPECT_EQ(confirmed(large, {{4, 0.9}, {2, 0.7}}), 2);
  EXPECT_EQ(confirmed({{1, 1.0, 9e9}}, {}), 1) << "there is no leaner one";
  EXPECT_EQ(confirmed({{1, 1.1, 1e6}, {2, 1.0, 1.5e8}}, {}), 2) << "small ones need no second look";
  EXPECT_EQ(compared, Pairs{});
}

TEST(MicroBatch, GoesInStreamsWhereTheyAreAtMostATwentiethSlower) {
  std::vector<std::pair<MicroBatch, MicroBatch>> compared;
  const auto good = [&](int streams, int64_t all, double ratio) {
    compared.clear();
    return streams_are_as_good(streams, all, [&](MicroBatch by_team, MicroBatch in_streams) {
      compared.emplace_back(by_team, in_streams);
      return ratio;
    });
  };
  EXPECT_TRUE(good(2, 32, 1.049));
  ASSERT_EQ(compared.size(), 1u);
  EXPECT_EQ(compared[0], (std::pair{MicroBatch{16, 1}, MicroBatch{16, 2}})) << "eight images for each thread";
  EXPECT_FALSE(good(2, 32, 1.051));
  EXPECT_TRUE(good(3, 5, 0.9));
  EXPECT_EQ(compared[0], (std::pair{MicroBatch{5, 1}, MicroBatch{5, 3}})) << "or all there are";
  for (const auto& [streams, all] : {std::pair{1, 32}, {4, 3}}) {
    EXPECT_FALSE(good(streams, all, 0.5));
    EXPECT_TRUE(compared.empty()) << "there is nothing to compare";
  }
  EXPECT_FALSE(streams_are_as_good(
      2, 32, [](const MicroBatch&, const MicroBatch&) -> double { throw ResourceError(ExitCode::limit, "no room"); }));
  EXPECT_THROW(
      streams_are_as_good(2, 32, [](const MicroBatch&, const MicroBatch&) -> double { throw InternalError("a bug"); }),
      InternalError);
}

TEST_F(Inference, AMeasuredMicroBatchIsRememberedAndCanBeAnyNumberOfImages) {
  const ModelSpec model = find_model("resnet18");
  MicroBatch chosen;
  for (int round = 0; round < 2; ++round) {
    Session session(make_backend("cpu", 2));
    int kernels = 0, comparisons = 0;
    InferenceProgram program(session, model,
                             {.model = {},
                              .images = {3, 3, kSide, kSide},
                              .micro_batch = kMeasuredMicroBatch,
                              .passes = {},
                              .keep_model_states = false},
                             [&](const std::string& what, int done, int total) {
                               ++(what == "choosing kernels" ? kernels : comparisons);
                               EXPECT_TRUE(what == "choosing kernels" || what.find("micro-batches of") != what.npos);
                               EXPECT_TRUE(1 <= done && done <= total) << what << ' ' << done << '/' << total;
                             });
    if (round == 0) chosen = program.micro_batch();
    EXPECT_EQ(program.micro_batch(), chosen);
    EXPECT_TRUE(1 <= chosen.images && chosen.images <= 3) << chosen.images;
    EXPECT_TRUE(chosen.streams == 1 || (chosen.streams == 2 && chosen.images >= 2)) << str(chosen);
    const int steps = chosen.streams * static_cast<int>(program.program().plan().steps.size());
    EXPECT_EQ(kernels > steps, round == 0) << "the second time nothing is tried";
    EXPECT_EQ(comparisons > 6, round == 0) << "measuring takes seconds, and tells of each pair";
  }
}

TEST_F(Inference, SmallPartsOfABatchAloneTakeKernelsThatSaveMemory) {
  const ModelSpec model = find_model("resnet20_cifar_a");
  /// Choices that were made to save memory, and others, once a program is there for each pair in turn.
  const auto choices = [&](const std::vector<std::pair<int64_t, int64_t>>& together_of_all, bool save = false) {
    Session session(make_backend("cpu", 2));
    for (const auto& [together, all] : together_of_all)
      InferenceProgram(session, model,
                       {.model = {},
                        .images = {all, 3, 8, 8},
                        .micro_batch = together,
                        .save_memory = save,
                        .passes = {},
                        .keep_model_states = false});
    std::pair<int, int> counts;
    for (const auto& [problem, choice] : session.backend().choices())
      ++(problem.find("small ") != std::string::npos ? counts.first : counts.second);
    return counts;
  };
  const auto few = choices({{8, 18}});
  EXPECT_GT(few.first, 0);
  EXPECT_EQ(few.second, 0);
  EXPECT_EQ(choices({{8, 8}}, true), few) << "or whoever asks for them";
  for (const auto& [together, all] : {std::pair{9, 18}, {8, 8}, {0, 8}}) {
    const auto others = choices({{together, all}});
    EXPECT_EQ(others.first, 0) << together << " of " << all;
    EXPECT_GT(others.second, 0) << together << " of " << all;
  }
  const auto both = choices({{8, 18}, {8, 8}});
  EXPECT_EQ(both.first, few.first) << "what is prepared afterwards does not";
  EXPECT_EQ(both.second, few.first);
}

TEST_F(Inference, AStateThatIsReadPackedAloneIsNotKept) {
  ScopedEnvironment environment("RESNET_CONV_ALGORITHM", "winograd"), without("RESNET_CONV_WITHOUT", "");
  const ModelSpec model = find_model("resnet18");
  const InferenceOptions options{.model = {}, .images = {1, 3, kSide, kSide}, .passes = {}, .keep_model_states = false};
  Session chosen(make_backend("cpu", 2));
  const InferenceProgram chooses(chosen, model, options);
  std::map<std::string, std::string> choices = chosen.backend().choices();
  for (auto& [problem, choice] : choices) {
    if (choice.find("winograd") != std::string::npos) choice = "winograd f2";  // packs, as those on the fly do not
  }
  size_t bytes[2];
  for (const KeepStates keep : {KeepStates::all, KeepStates::unpacked}) {
    Session session(make_backend("cpu", 2));
    session.backend().adopt(choices);
    InferenceProgram program(session, model, options);
    program.load(initial_values(model), keep);
    bytes[keep == KeepStates::unpacked] = session.state_bytes();
  }
  EXPECT_LT(bytes[1], bytes[0] / 3) << "most weights of ResNet-18 are 3x3, of stride 1";
}

/// A model file large enough for the cache, and a cache of the test's own.
class CachedWeights : public ::testing::Test {
 protected:
  CachedWeights() { write(3); }
  void write(uint64_t seed) {
    ModelDescription d{.architecture = "resnet18", .channels = 3, .class_names = {"ant", "bee", "cat"}};
    d.options.num_classes = 3;
    d.preprocessing.image_size = kSide;
    d.preprocessing.mean = d.preprocessing.std = {0.5f, 0.5f, 0.5f};
    ModelFile file{.metadata = to_metadata(d), .tensors = {}};
    for (const StateSpec& s : model_states(find_model(d.architecture), d.options, DType::f32))
      file.tensors[s.name] = initial_value(s, seed);
    write_safetensors(path_, file);
  }

  struct Start {
    Tensor logits;
    std::string before, origin;
    int64_t packed = 0;
    size_t adopted = 0;
  };
  /// One process's start, as it were.
  Start start(
      const char* algorithm, KeepStates keep, int threads = 1, const std::set<std::string>& disabled = {},
      const std::function<void()>& before_keeping = [] {}) {
    ScopedEnvironment environment("RESNET_CONV_ALGORITHM", algorithm);
    const auto model = std::make_shared<const OpenModel>(path_);
    Session session(make_backend("cpu", threads));
    InferenceProgram program(session, find_model("resnet18"),
                             {.model = model->description().options,
                              .images = {2, 3, kSide, kSide},
                              .passes = {.disabled = disabled, .observer = {}},
                              .keep_model_states = false});
    program.load(model, weights_, keep);
    Start result{.logits = program.run(random_images(2)), .before = program.weights_origin(), .origin = ""};
    before_keeping();
    program.keep_for_next_start();
    result.origin = program.weights_origin();
    result.packed = session.packed_states();
    result.adopted = session.adopted_bytes();
    EXPECT_EQ(program.run(random_images(2)), result.logits);
    return result;
  }
  size_t files() const {
    return std::filesystem::exists(folder_)
               ? static_cast<size_t>(std::distance(std::filesystem::directory_iterator(folder_), {}))
               : 0;
  }

  PrivateTuningCache tuning_;
  ScopedEnvironment without_{"RESNET_CONV_WITHOUT", ""};  // Winograd's packed weights are what most tests look for
  TemporaryDirectory directory_;
  std::string path_ = directory_ / "model.safetensors";
  std::filesystem::path folder_ = std::filesystem::path(directory_ / "weights");
  WeightsCache weights_{folder_, uint64_t{1} << 30, 2};
};

TEST_F(CachedWeights, ASecondStartPacksNothingAndAnswersTheSameBytes) {
  size_t kept = 0;
  for (const char* algorithm : {"direct", "winograd"}) {
    for (const KeepStates keep : {KeepStates::all, KeepStates::unpacked}) {
      const Start first = start(algorithm, keep);
      EXPECT_EQ(first.before, "file (not kept yet)");
      EXPECT_EQ(first.origin, "file (kept for the next start)");
      EXPECT_EQ(first.adopted, 0u);
      EXPECT_GT(first.packed, std::string(algorithm) == "winograd" ? 7 : -1) << "half of the 16, or all";
      EXPECT_EQ(files(), ++kept);
      const Start second = start(algorithm, keep);
      EXPECT_EQ(second.origin, "cache");
      EXPECT_EQ(second.packed, 0);
      EXPECT_GT(second.adopted, size_t{40} << 20);
      EXPECT_EQ(second.logits, first.logits) << algorithm;
      EXPECT_EQ(files(), kept);
    }
  }
}

TEST_F(CachedWeights, AnotherFileMachineOrProgramHasOthers) {
  const Tensor logits = start("direct", KeepStates::all).logits;
  if (omp_get_thread_limit() >= 2) {  // else two are one
    EXPECT_EQ(start("direct", KeepStates::all, 2).before, "file (not kept yet)") << "threads";
  }
  EXPECT_EQ(start("direct", KeepStates::all, 1, {"fold_batch_norm"}).before, "file (not kept yet)")
      << "a pass left out";
  EXPECT_EQ(start("direct", KeepStates::all).origin, "cache");
  write(4);
  const Start other = start("direct", KeepStates::all);
  EXPECT_EQ(other.before, "file (not kept yet)");
  EXPECT_NE(other.logits, logits);
  write(3);
  EXPECT_EQ(start("direct", KeepStates::all).logits, logits) << "the first file's are still there";
}

TEST_F(CachedWeights, NothingIsKeptOfAFileThatChangesMeanwhile) {
  const Start first = start("direct", KeepStates::all, 1, {}, [&] {
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-1, std::ios::end);
    file.put('\1');
  });
  EXPECT_EQ(first.origin, "file (the file has changed meanwhile)");
  EXPECT_EQ(files(), 0u);
}

TEST_F(CachedWeights, ADamagedFileIsMadeAnewAndNoCacheIsNoError) {
  const Tensor logits = start("direct", KeepStates::all).logits;
  const std::filesystem::path path = std::filesystem::directory_iterator(folder_)->path();
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 64);
  const Start again = start("direct", KeepStates::all);
  EXPECT_EQ(again.origin, "file (kept for the next start)");
  EXPECT_EQ(again.logits, logits);
  EXPECT_EQ(start("direct", KeepStates::all).origin, "cache");
  weights_ = WeightsCache(folder_, 0);
  const Start off = start("direct", KeepStates::all);
  EXPECT_EQ(off.origin, "file (the cache is off)");
  EXPECT_EQ(off.logits, logits);
}

TEST_F(CachedWeights, NewValuesReplaceThoseFromTheCache) {
  start("winograd", KeepStates::all);
  ScopedEnvironment environment("RESNET_CONV_ALGORITHM", "winograd");
  const auto model = std::make_shared<const OpenModel>(path_);
  const ModelSpec spec = find_model("resnet18");
  const auto logits = [&](bool cached, uint64_t seed) {
    Session session(make_backend("cpu", 1));
    InferenceProgram program(session, spec,
                             {.model = model->description().options,
                              .images = {2, 3, kSide, kSide},
                              .passes = {},
                              .keep_model_states = false});
    if (cached) {
      program.load(model, weights_);
      EXPECT_EQ(program.weights_origin(), "cache");
      program.run(random_images(2));
    }
    std::map<std::string, Tensor> values;
    for (const StateSpec& s : model_states(spec, model->description().options, DType::f32))
      values[s.name] = initial_value(s, seed);
    program.load(std::move(values));
    return program.run(random_images(2));
  };
  EXPECT_EQ(logits(true, 9), logits(false, 9));
}

}  // namespace
}  // namespace resnet
