// The training loop on a data set of a few noisy images: what it leaves in its run directory, exact resume, refusals.

#include "train/trainer.h"

#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>

#include "data/idx_folder.h"
#include "ops/evaluate.h"
#include "runtime/on_backend.h"

namespace resnet {
namespace {

using namespace testing;
namespace fs = std::filesystem;

class Trainer : public ::testing::Test {
 protected:
  Trainer() : directory_(memory_directory()) { testing_data::write_idx_folder(data(), 1); }

  std::string data() const { return directory_ / "data"; }
  std::string path(const std::string& name) const { return directory_ / name; }

  TrainRequest request(const std::string& name) const {
    TrainRequest r;
    r.config.data = data();
    r.config.image_size = 16;
    r.config.batch_size = 8;
    r.config.epochs = 2;
    r.config.momentum = 0.9;
    r.config.lr = 0.01;
    r.config.threads = 1;
    r.config.log_every = 1;
    r.output = path(name);
    return r;
  }
  TrainRequest resumed(const std::string& name) const {
    TrainRequest r = request(name);
    r.resume = true;
    return r;
  }

  template <class Action>
  static void expect_error(ExitCode code, const std::string& part, Action&& action) {
    try {
      action();
      ADD_FAILURE() << "nothing was thrown; expected an error about " << part;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << part << " is not in: " << error.what();
    }
  }

  TemporaryDirectory directory_;
  PrivateTuningCache cache_;
  ScopedEnvironment algorithm_{"RESNET_CONV_ALGORITHM", "direct"};  // less to measure; the stem's gradient still is
};

/// Everything of a checkpoint that must not depend on where the run was stopped.
std::map<std::string, std::string> essence(const std::string& run) {
  std::map<std::string, std::string> files;
  for (const char* name : {"/last/model.safetensors", "/last/optimizer.safetensors", "/best.safetensors"}) {
    files[name] = content_of(run + name);
    EXPECT_GT(files[name].size(), 10000u) << name;
  }
  const TrainState state = train_state_from_json("state.json", content_of(run + "/last/state.json"));
  files["metrics"] = fmt::format("{} {} {} {}", state.step, state.epoch, state.sample, state.best_top1);
  for (const EpochMetrics& m : state.metrics) {
    files["metrics"] += fmt::format(" | {} {} {} {} {} {} {}", m.epoch, m.train_loss, m.train_top1, m.eval_loss,
                                    m.eval_top1, m.eval_top5, m.lr);
  }
  return files;
}

int lines_of(const std::string& text) { return static_cast<int>(std::count(text.begin(), text.end(), '\n')); }

TEST_F(Trainer, AStoppedAndResumedRunEndsWithTheSameBytes) {
  int steps = 0;
  std::vector<int64_t> epochs;
  TrainObserver observer;
  observer.on_step = [&](const TrainObserver::Stepped& s) { EXPECT_EQ(s.step, ++steps); };
  observer.on_epoch = [&](const EpochMetrics& m, bool) { epochs.push_back(m.epoch); };
  const TrainResult whole = train(request("whole"), observer);
  EXPECT_EQ(whole.steps, 6);
  EXPECT_EQ(steps, 6);
  EXPECT_EQ(epochs, (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(whole.output, path("whole"));
  EXPECT_GT(whole.train_loss, 0);
  EXPECT_GT(whole.peak_bytes, 10u << 20);
  EXPECT_EQ(lines_of(content_of(path("whole") + "/metrics.csv")), 3);
  EXPECT_EQ(lines_of(content_of(path("whole") + "/events.jsonl")), 6 + 2);
  EXPECT_TRUE(fs::exists(path("whole") + "/plots/learning_curve.svg"));
  const auto expected = essence(path("whole"));

  // Stopped by --max-steps in the middle of an epoch (before the smaller batch), resumed twice; the last time with a
  // tuning cache that knows nothing.
  TrainRequest part = request("parts");
  part.config.max_steps = 2;
  EXPECT_EQ(train(part, {}).steps, 2);
  EXPECT_EQ(train_state_from_json("", content_of(path("parts") + "/last/state.json")).sample, 16);
  part = resumed("parts");
  part.config.max_steps = 3;
  EXPECT_EQ(train(part, {}).steps, 3);
  {
    PrivateTuningCache empty;
    std::vector<std::string> warnings;
    TrainObserver listener;
    listener.on_warning = [&](const std::string& text) { warnings.push_back(text); };
    EXPECT_EQ(train(resumed("parts"), listener).steps, 6);
    EXPECT_EQ(warnings, std::vector<std::string>{});
  }
  for (const auto& [name, bytes] : essence(path("parts")))
    EXPECT_TRUE(bytes == expected.at(name)) << name << " differs";
  EXPECT_EQ(lines_of(content_of(path("parts") + "/events.jsonl")), 6 + 2);

  // A finished run resumed does nothing more.
  EXPECT_EQ(train(resumed("parts"), {}).steps, 6);
  EXPECT_TRUE(essence(path("parts")) == expected);
}

TEST_F(Trainer, AStoppedAndResumedRunDropsTheSameBranches) {
  const auto with_depth = [&](TrainRequest r) {
    r.config.model = "resnet8_cifar_a";
    r.config.blocks = {1, 2};
    r.config.drop_path = 0.5;
    return r;
  };
  train(with_depth(request("whole")), {});
  const auto expected = essence(path("whole"));
  TrainRequest part = with_depth(request("parts"));
  part.config.max_steps = 2;
  train(part, {});
  EXPECT_EQ(train(with_depth(resumed("parts")), {}).steps, 6);
  EXPECT_TRUE(essence(path("parts")) == expected);
  TrainRequest without = with_depth(request("without"));
  without.config.drop_path = 0;
  train(without, {});
  EXPECT_FALSE(essence(path("without")) == expected) << "nothing was dropped";
  TrainRequest other = with_depth(resumed("parts"));
  other.config.drop_path = 0.25;
  expect_error(ExitCode::refused, "model.drop_path", [&] { train(other, {}); });
}

TEST_F(Trainer, AResumedRunFollowsItsCheckpointsAlgorithmsWhateverTheCacheSays) {
  // Of which there are several to choose from.
  ScopedEnvironment tiles("RESNET_CONV_ALGORITHM", "winograd"), without("RESNET_CONV_WITHOUT", "");
  train(request("whole"), {});
  TrainRequest part = request("part");
  std::atomic<int> signal = 0;
  part.stop_signal = &signal;
  TrainObserver stopping;
  stopping.on_step = [&](const TrainObserver::Stepped& s) { signal = s.step == 2 ? SIGTERM : 0; };
  EXPECT_EQ(train(part, stopping).steps, 2);
  const auto choices_of = [&](const std::string& run) {
    return train_state_from_json("", content_of(path(run) + "/last/state.json")).choices;
  };
  const auto chosen = choices_of("part");

  // The same cache with another valid choice wherever one is sure to be: any tile can do what another can.
  const std::map<std::string, std::string> other = {{"\"winograd f2\"", "\"winograd f4\""},
                                                    {"\"winograd f3\"", "\"winograd f2\""},
                                                    {"\"winograd f4\"", "\"winograd f3\""},
                                                    {"\"onednn winograd\"", "\"winograd f4\""},
                                                    {"\"stem\"", "\"direct\""}};
  const std::string folder = std::string(std::getenv("XDG_CACHE_HOME")) + "/resnet/";
  const std::vector<std::string> files = names_in(folder);
  ASSERT_EQ(files.size(), 1u);
  const std::string known = content_of(folder + files[0]);
  std::string changed;
  for (size_t at = 0; at < known.size();) {
    const auto hit = std::find_if(other.begin(), other.end(),
                                  [&](const auto& o) { return known.compare(at, o.first.size(), o.first) == 0; });
    changed += hit == other.end() ? known.substr(at, 1) : hit->second;
    at += hit == other.end() ? 1 : hit->first.size();
  }
  ASSERT_NE(changed, known) << "nothing to choose from: " << known;
  const PrivateTuningCache contrary;
  const std::string contrary_folder = std::string(std::getenv("XDG_CACHE_HOME")) + "/resnet/";
  fs::create_directories(contrary_folder);
  put(contrary_folder + files[0], changed);

  train(resumed("part"), {});
  EXPECT_EQ(choices_of("part"), choices_of("whole"));
  for (const auto& [problem, algorithm] : chosen) EXPECT_EQ(choices_of("part").at(problem), algorithm) << problem;
  EXPECT_TRUE(essence(path("part")) == essence(path("whole")));
  // A new run, which has nothing to follow, does take what the cache says.
  train(request("contrary"), {});
  EXPECT_NE(choices_of("contrary"), choices_of("whole"));
}

TEST_F(Trainer, ALongerCosineIsAnotherRun) {
  TrainRequest r = request("cosine");
  r.config.lr_scheduler = "cosineannealinglr";
  r.config.max_steps = 1;
  train(r, {});
  r.resume = true;
  r.config.epochs = 3;
  expect_error(ExitCode::refused, "epochs: 3, was 2", [&] { train(r, {}); });
}

TEST_F(Trainer, AResumeThatCannotBeginChangesNothing) {
  TrainRequest r = request("run");
  r.config.checkpoint_every = 1;
  r.config.max_steps = 2;
  train(r, {});
  const auto before = [&] {
    return content_of(path("run") + "/config.toml") + content_of(path("run") + "/events.jsonl") +
           fs::read_symlink(path("run") + "/last").string();
  };
  const std::string is = before();
  // A checkpoint of a run without momentum under the name of one with it: read, but not enough to go on.
  TrainRequest plain = request("plain");
  plain.config.momentum = 0;
  plain.config.max_steps = 1;
  train(plain, {});
  TrainRequest from_plain = resumed("run");
  from_plain.checkpoint = path("plain") + "/step-1";
  expect_error(ExitCode::io, "optimizer.safetensors", [&] { train(from_plain, {}); });
  EXPECT_EQ(before(), is);
}

TEST_F(Trainer, ASignalFinishesTheStepSavesAndLosesNothing) {
  TrainRequest r = request("stopped");
  r.config.epochs = 1;
  r.config.workers = 2;
  std::atomic<int> signal = 0;
  r.stop_signal = &signal;
  TrainObserver observer;
  observer.on_step = [&](const TrainObserver::Stepped& s) {
    if (s.step == 1) signal = SIGTERM;
  };
  const TrainResult stopped = train(r, observer);
  EXPECT_EQ(stopped.stopped_by, SIGTERM);
  EXPECT_EQ(stopped.steps, 1);
  // Then in the evaluation that ends the epoch: the epoch stays open.
  signal = 0;
  r.resume = true;
  observer.on_step = {};
  observer.on_evaluate = [&](int64_t, int64_t) { signal = SIGINT; };
  const TrainResult in_evaluation = train(r, observer);
  EXPECT_EQ(in_evaluation.stopped_by, SIGINT);
  EXPECT_EQ(in_evaluation.steps, 3);
  const TrainState open = train_state_from_json("state.json", content_of(path("stopped") + "/last/state.json"));
  EXPECT_TRUE(open.evaluation_pending);
  EXPECT_TRUE(open.metrics.empty());
  signal = 0;
  r.stop_signal = nullptr;
  observer = {};
  EXPECT_EQ(train(r, observer).steps, 3);
  TrainRequest whole = request("whole");
  whole.config.epochs = 1;
  train(whole, {});
  EXPECT_TRUE(essence(path("stopped")) == essence(path("whole")));
}

TEST_F(Trainer, AugmentsTrainingAlone) {
  // A rate of 0 keeps the weights, so that only the images and the statistics taken of them differ.
  TrainRequest plain = request("plain");
  plain.config.lr = 0;
  plain.config.momentum = 0;
  plain.config.epochs = 1;
  TrainRequest augmented = plain;
  augmented.output = path("augmented");
  augmented.config.random_crop_padding = 4;
  augmented.config.hflip_prob = 1;
  const TrainResult without = train(plain, {});
  const TrainResult with = train(augmented, {});
  EXPECT_NE(with.train_loss, without.train_loss);
  // The run's own evaluation is the one of its model on images as they are.
  const LoadedModel model = load_model(path("augmented") + "/last/model.safetensors");
  const ModelSpec spec = find_model(model.description.architecture);
  Session session(make_backend("cpu", 1));
  InferenceProgram program(session, spec,
                           {.model = model.description.options, .dtype = model.dtype, .images = {7, 1, 16, 16}});
  write_states(session, model.values);
  program.refresh();
  const Dataset test_set = load_dataset(data(), Split::test);
  const Evaluation evaluation = evaluate(program, test_set, {.image_size = 16}, {.workers = 0});
  EXPECT_NEAR(evaluation.loss, with.eval_loss, 1e-4 * with.eval_loss);
}

TEST_F(Trainer, DivergenceEndsWithSixAndKeepsTheLastCheckpoint) {
  TrainRequest r = request("diverged");
  r.config.lr = 1e30;
  r.config.momentum = 0;
  r.config.epochs = 4;
  int skipped = 0;
  TrainObserver observer;
  observer.on_warning = [&](const std::string& text) { skipped += text.find("not applied") != std::string::npos; };
  expect_error(ExitCode::diverged, "diverged", [&] { train(r, observer); });
  EXPECT_GE(lines_of(content_of(path("diverged") + "/events.jsonl")), 2);
  EXPECT_EQ(skipped, 3);
  // A rate that is infinite in f32: the weights are lost with the first step, and nobody's best.
  TrainRequest lost = request("lost");
  lost.config.lr = 1e300;
  lost.config.epochs = 1;
  expect_error(ExitCode::diverged, "no longer finite", [&] { train(lost, {}); });
  EXPECT_FALSE(fs::exists(path("lost") + "/best.safetensors"));
  EXPECT_FALSE(fs::exists(path("lost") + "/last"));
}

TEST_F(Trainer, AStepWithoutAFiniteLossChangesNothingAndThreeInARowEndTheRun) {
  TrainRequest first = request("first");
  first.config.max_steps = 1;
  train(first, {});
  ModelFile huge = read_safetensors(path("first") + "/last/model.safetensors");
  for (float& weight : huge.tensors.at("7.weight").as<float>()) weight = 1e38f;  // the logits overflow
  write_safetensors(path("huge.safetensors"), huge);

  TrainRequest r = request("diverged");
  r.config.weights = path("huge.safetensors");
  r.config.max_steps = 2;
  int skipped = 0;
  TrainObserver observer;
  observer.on_warning = [&](const std::string& text) { skipped += text.find("not applied") != std::string::npos; };
  EXPECT_EQ(train(r, observer).steps, 2);
  EXPECT_EQ(skipped, 2);
  const ModelFile after = read_safetensors(path("diverged") + "/last/model.safetensors");
  for (const auto& [name, tensor] : huge.tensors) EXPECT_TRUE(after.tensors.at(name) == tensor) << name;
  for (const auto& [name, tensor] : read_safetensors(path("diverged") + "/last/optimizer.safetensors").tensors) {
    for (const float v : tensor.as<float>()) ASSERT_EQ(v, 0) << name;
  }
  const std::string events = content_of(path("diverged") + "/events.jsonl");
  EXPECT_EQ(lines_of(events), 2) << events;
  EXPECT_NE(events.find("skipped"), std::string::npos);

  // A periodic save would push the good checkpoint out.
  TrainRequest often = r;
  often.output = path("often");
  often.config.checkpoint_every = 1;
  often.config.max_steps = 0;
  expect_error(ExitCode::diverged, "3 steps in a row (step 3)", [&] { train(often, observer); });
  EXPECT_FALSE(fs::exists(path("often") + "/last"));
  skipped = 2;

  // The count goes on where the run does.
  r.resume = true;
  r.config.max_steps = 0;
  expect_error(ExitCode::diverged, "3 steps in a row (step 3)", [&] { train(r, observer); });
  EXPECT_EQ(skipped, 3);
  EXPECT_EQ(open_checkpoint(path("diverged")).step, 2);
}

TEST_F(Trainer, RunDirectoriesInUseOrOfAnotherRunAreRefused) {
  TrainRequest r = request("run");
  r.config.max_steps = 1;
  train(r, {});
  const auto before = content_of(path("run") + "/last/model.safetensors");
  expect_error(ExitCode::refused, "--resume", [&] { train(r, {}); });
  fs::create_directories(path("other"));
  put(path("other") + "/thesis.txt", "x");
  TrainRequest into_other = request("other");
  expect_error(ExitCode::refused, "not empty", [&] { train(into_other, {}); });
  EXPECT_EQ(names_in(path("other")), std::vector<std::string>{"thesis.txt"});
  {
    const RunDirectory holder = RunDirectory::open(path("run"));
    expect_error(ExitCode::refused, "another process", [&] { train(resumed("run"), {}); });
  }
  expect_error(ExitCode::io, "config.toml", [&] { train(resumed("missing"), {}); });

  // Other settings, other data.
  TrainRequest other = resumed("run");
  other.config.lr = 0.02;
  other.config.seed = 5;
  expect_error(ExitCode::refused, "lr: 0.02, was 0.01; seed: 5, was 0", [&] { train(other, {}); });
  testing_data::write_idx_folder(data(), 2);
  expect_error(ExitCode::refused, "data is not what the run was started on", [&] { train(resumed("run"), {}); });
  testing_data::write_idx_folder(data(), 1);
  EXPECT_TRUE(content_of(path("run") + "/last/model.safetensors") == before);

  // A checkpoint with a flipped bit is bad data, not a start from somewhere else.
  std::string bytes = before;
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  put(path("run") + "/last/model.safetensors", bytes);
  expect_error(ExitCode::bad_data, "model.safetensors", [&] { train(resumed("run"), {}); });
}

TEST_F(Trainer, ThePassesAndInitialWeightsAreWhatTheRequestSays) {
  TrainRequest first = request("first");
  first.config.epochs = 1;
  first.config.limit = 8;
  first.dump_gradients = path("gradients.safetensors");
  const TrainResult result = train(first, {});
  EXPECT_EQ(result.steps, 1) << "8 images are one batch";
  const ModelFile gradients = read_safetensors(path("gradients.safetensors"));
  EXPECT_EQ(gradients.tensors.size(), 76u) << "one for each parameter";
  const LoadedModel model = load_model(path("first") + "/best.safetensors");
  EXPECT_EQ(model.description.class_names, (std::vector<std::string>{"0", "1", "2"}));
  EXPECT_EQ(model.description.preprocessing.image_size, 16);
  // A rate of 0 leaves the given weights as they are.
  TrainRequest second = request("second");
  second.config.weights = path("first") + "/best.safetensors";
  second.config.lr = 0;
  second.config.max_steps = 1;
  train(second, {});
  const LoadedModel same = load_model(path("second") + "/last/model.safetensors");
  for (const auto& [name, tensor] : model.values) {
    if (name.find("running") == std::string::npos) {
      EXPECT_TRUE(same.values.at(name) == tensor) << name;
    } else {
      EXPECT_FALSE(same.values.at(name) == tensor) << name << " was not updated";
    }
  }
  TrainRequest too_many = request("third");
  too_many.config.limit = 21;
  expect_error(ExitCode::usage, "--limit", [&] { train(too_many, {}); });
  EXPECT_FALSE(fs::exists(path("third")));
}

TEST(TrainStateJson, RoundTripsAndNamesWhatIsWrong) {
  TrainState s;
  s.step = 3;
  s.best_top1 = 0.1 + 0.2;
  s.data_fingerprint = 0xfedcba9876543210u;
  s.evaluation_pending = true;
  s.choices = {{"problem", "winograd f4"}};
  s.metrics.push_back({.epoch = 1, .train_loss = 1.0 / 3, .eval_loss = std::numeric_limits<double>::quiet_NaN()});
  const std::string text = to_json(s);
  const TrainState read = train_state_from_json("state.json", text);
  EXPECT_EQ(to_json(read), text);
  EXPECT_EQ(read.best_top1, s.best_top1);
  EXPECT_EQ(read.data_fingerprint, s.data_fingerprint);
  EXPECT_TRUE(std::isnan(read.metrics.at(0).eval_loss));
  for (const std::string& wrong :
       {std::string("[]"), std::string("{"), std::string("{}"), text.substr(0, text.size() / 2)}) {
    try {
      train_state_from_json("state.json", wrong);
      ADD_FAILURE() << wrong;
    } catch (const UserError& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_data);
    }
  }
}

TEST(RunDirectory, EventsAfterTheCheckpointAndCutLinesGoOnResume) {
  const TemporaryDirectory directory(memory_directory());
  RunDirectory run = RunDirectory::create(directory / "run", {});
  for (int step = 1; step <= 4; ++step) run.append_event(fmt::format("{{\"step\":{}}}", step));
  run.append_event("{\"step\":2,\"cut");
  run.rewind_events(2, false);
  EXPECT_EQ(content_of(directory / "run/events.jsonl"), "{\"step\":1}\n{\"step\":2}\n");
  run.append_event("{\"step\":3}");
  run.sync_events();
  EXPECT_EQ(content_of(directory / "run/events.jsonl"), "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n");
  EXPECT_EQ(differences(run.config(), TrainConfig{}), std::vector<std::string>{});
  EXPECT_EQ(RunDirectory::fresh_name(directory / "run"), directory / "run-1");
}

}  // namespace
}  // namespace resnet
